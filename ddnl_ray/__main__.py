"""``python -m ddnl_ray`` is the command ``ddnl``."""

from ddnl_ray.cli import main

main()
