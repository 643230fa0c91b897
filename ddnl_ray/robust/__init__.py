"""Robust methods: what makes a distiller trust the right samples."""
