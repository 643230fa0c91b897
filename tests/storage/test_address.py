"""Addresses: which are read, as what, and why others are refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from ddnl_ray.errors import RequestError
from ddnl_ray.storage import LocalFolder, RemoteAddress, open_folder, parse_address


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("runs", "runs"),
        ("/data/runs", "/data/runs"),
        ("../runs", "../runs"),
        ("runs:2/a", "runs:2/a"),
        ("file:///data/my%20runs", "/data/my runs"),
        ("file://localhost/data", "/data"),
    ],
)
def test_local_addresses_are_paths(text: str, path: str) -> None:
    assert parse_address(text) == Path(path)
    assert isinstance(open_folder(text, "read"), LocalFolder)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket", RemoteAddress("s3", "bucket")),
        ("S3://bucket/a/b/", RemoteAddress("s3", "bucket", "a/b")),
        ("gs://my_bucket/runs", RemoteAddress("gs", "my_bucket", "runs")),
        ("s3://bucket/a?region=eu-west-1", RemoteAddress("s3", "bucket", "a", (("region", "eu-west-1"),))),
        (
            "s3://bucket?scheme=http&endpoint_override=minio:9000",
            RemoteAddress("s3", "bucket", "", (("endpoint_override", "minio:9000"), ("scheme", "http"))),
        ),
    ],
)
def test_remote_addresses_survive_their_text(text: str, expected: RemoteAddress) -> None:
    found = parse_address(text)
    assert found == expected
    assert parse_address(str(found)) == found
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_name_is_joined_before_the_options() -> None:
    run = parse_address("s3://bucket/runs?region=eu-west-1") / "mine"
    assert str(run) == "s3://bucket/runs/mine?region=eu-west-1"
    assert isinstance(run, RemoteAddress)
    assert (run.place, run.prefix, run.name) == ("s3://bucket/runs/mine", "bucket/runs/mine", "mine")
    assert str(RemoteAddress("gs", "bucket") / "mine") == "gs://bucket/mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not an address"),
        (" s3://bucket", "has blanks around it"),
        ("s3://bucket/a\nb", "is not an address"),
        ("http://host/runs", "http:// cannot be read and written here; give a folder, s3://bucket/folder or"),
        ("https://bucket.s3.amazonaws.com/x", "https:// cannot be read"),
        ("hdfs://host/runs", "hdfs:// cannot be read"),
        ("abfss://c@account/x", "abfss:// cannot be read"),
        ("s3a://bucket/runs", "write s3:// instead"),
        ("gcs://bucket/runs", "write gs:// instead"),
        ("s3:/bucket/runs", "needs two slashes after the colon: s3://bucket/runs"),
        ("s3:bucket", "needs two slashes after the colon: s3://bucket"),
        ("file:runs", "needs two slashes"),
        ("s3://", "has no bucket: write s3://bucket/folder"),
        ("s3:///runs", "has no bucket"),
        ("gs://?scheme=http", "has no bucket"),
        ("s3://Bucket/runs", "'Bucket' is not the name of a bucket: 3 or more lower-case letters"),
        ("s3://my_bucket/runs", "'my_bucket' is not the name of a bucket"),
        ("s3://b/runs", "'b' is not the name of a bucket"),
        ("s3://bucket:9000/runs", "'bucket:9000' is not the name of a bucket"),
        ("s3://key:hush@bucket/runs", "holds credentials"),
        ("s3://bucket/runs?access_key=a&secret_key=hush", "holds credentials"),
        ("s3://bucket/runs?endpoint_override=key:hush@minio", "holds credentials"),
        ("s3://bucket/a//b", "must be plain names with single slashes"),
        ("s3://bucket/../b", "must be plain names"),
        ("s3://bucket/a#b", "must be plain names"),
        ("s3://bucket/a\\b", "must be plain names"),
        ("s3://bucket?regio=x", "unknown option 'regio': did you mean 'region'?"),
        ("gs://bucket?region=x", "unknown option 'region'"),
        ("s3://bucket?region=", "option region needs a value"),
        ("s3://bucket?scheme=ftp", "option scheme needs a value (http or https)"),
        ("C:\\runs", "names a Windows drive"),
        ("D:/runs", "names a Windows drive"),
        ("file://host/runs", "write file:///absolute/path"),
    ],
)
def test_wrong_addresses_are_refused_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_address(text)
    assert message in str(caught.value)
    assert "hush" not in str(caught.value)


def test_google_storage_is_opened_without_asking_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DDNL_CACHE", str(tmp_path))
    folder = open_folder("gs://bucket/runs/mine?endpoint_override=127.0.0.1:1&scheme=http", "read")
    assert folder.is_remote
    assert folder.named("report.html") == "gs://bucket/runs/mine/report.html"
    assert folder.path.name == "mine"
    assert folder.path.is_relative_to(tmp_path)
