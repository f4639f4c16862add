"""Fetching over bad lines: from a server on this machine, with a few kilobytes in place of megabytes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from gcnet.errors import GCNetError
from gcnet.weights import transfer
from gcnet.weights.catalog import Weights, find
from gcnet.weights.fetch import LocalFile, Source, find_cached, find_source, read_cached, store
from gcnet.weights.fetch import fetch as fetch_file
from gcnet.weights.transfer import CHUNK, Patience

CONTENT = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(200)) * 500  # 3.2 MB: several chunks
SHA = hashlib.sha256(CONTENT).hexdigest()[:8]
PATH = f"mmdetection/v2.0/gcnet/row/row_2020-{SHA}.pth"
NAME = PATH.rsplit("/", 1)[1]
HASTY = Patience(connect=0.5, read=0.5, tries=3, pause=0.0)


@pytest.fixture
def weights(file_server: Any) -> Weights:
    file_server.files[PATH] = CONTENT
    return Weights(f"{file_server.address}/{PATH}", SHA)


def fetch(weights: Weights, **options: Any) -> Path:
    """The file, whose SHA-256 is known."""
    file = fetch_file(weights, **options)
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    return file.path


def leftovers() -> list[str]:
    """What lies in the store beside whole files and locks."""
    return [path.name for path in store().glob("*") if not path.name.endswith((".pth", ".lock"))]


def failure(weights: Weights, **options: Any) -> str:
    """The one line that `fetch` ends with; no file is there afterwards."""
    with pytest.raises(GCNetError) as raised:
        fetch(weights, **{"patience": HASTY} | options)
    assert "\n" not in str(raised.value)
    assert find_cached(weights) is None
    return str(raised.value)


# --- the straight way ----------------------------------------------------------------------------------


def test_fetched_once(weights: Weights, file_server: Any, home: Path, capsys) -> None:
    path = fetch(weights, patience=HASTY)
    assert path == home / "weights" / NAME
    assert path.read_bytes() == CONTENT
    said = capsys.readouterr().err
    assert said.rstrip() == f"fetching {NAME} (3 MB) from {file_server.address[7:]} into {home / 'weights'}"
    assert fetch(weights, patience=HASTY) == path
    assert file_server.asked == [(f"/{PATH}", None)]
    assert capsys.readouterr().err == ""
    assert leftovers() == []


def test_where_files_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store() == tmp_path / "home" / "weights"
    monkeypatch.delenv("GCNET_HOME")
    assert store() == tmp_path / "xdg" / "gcnet" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store() == Path.home() / ".cache" / "gcnet" / "weights"


def test_a_file_put_there_by_hand(weights: Weights, file_server: Any) -> None:
    store().mkdir(parents=True)
    (store() / NAME).write_bytes(CONTENT)
    assert fetch(weights).read_bytes() == CONTENT
    assert file_server.asked == []


def test_a_wrong_file_put_there_by_hand_is_named_and_stays(weights: Weights, file_server: Any) -> None:
    store().mkdir(parents=True)
    (store() / NAME).write_bytes(CONTENT[:-1])
    with pytest.raises(GCNetError, match=f"{NAME} is not the published file.*not {SHA}; delete it"):
        fetch(weights)
    assert (store() / NAME).read_bytes() == CONTENT[:-1]
    assert file_server.asked == []


def test_files_of_torch_hub_count(weights: Weights, file_server: Any, tmp_path: Path) -> None:
    hub = tmp_path / "torch" / "hub" / "checkpoints"
    hub.mkdir(parents=True)
    (hub / NAME).write_bytes(CONTENT)
    assert find_cached(weights) == fetch(weights) == hub / NAME
    (hub / NAME).write_bytes(b"something else")  # not ours to complain about
    assert read_cached(weights) is None
    assert fetch(weights, patience=HASTY) == store() / NAME


# --- bad lines -----------------------------------------------------------------------------------------


def test_a_cut_connection_is_gone_on_with(weights: Weights, file_server: Any) -> None:
    kept = 20 * CHUNK + 100
    file_server.cuts = [kept, kept]  # nothing of what has come is lost
    assert fetch(weights, patience=HASTY).read_bytes() == CONTENT
    assert [wanted for _, wanted in file_server.asked] == [None, f"bytes={kept}-", f"bytes={2 * kept}-"]
    assert file_server.sent == len(CONTENT)
    assert leftovers() == []


def test_a_later_run_goes_on(weights: Weights, file_server: Any, mirror_server: Any) -> None:
    file_server.cuts = [10 * CHUNK, 0, 0, 0]
    assert "the connection was cut" in failure(weights)
    assert leftovers() == [f"{NAME}.part"]
    assert len(file_server.asked) == 4  # three tries without progress
    file_server.status = 503
    mirror_server.files[PATH] = CONTENT
    fetch(weights, mirrors=[mirror_server.address], patience=HASTY)
    assert mirror_server.asked == [(f"/{PATH}", f"bytes={10 * CHUNK}-")]
    assert leftovers() == []


def test_a_server_without_ranges_sends_all_again(weights: Weights, file_server: Any) -> None:
    file_server.ranges = False
    file_server.cuts = [1_000_000]
    assert fetch(weights, patience=HASTY).read_bytes() == CONTENT
    assert file_server.sent == len(CONTENT) + 1_000_000


def test_a_rest_of_something_else_is_fetched_anew(weights: Weights, file_server: Any) -> None:
    store().mkdir(parents=True)
    (store() / f"{NAME}.part").write_bytes(b"x" * 1000)
    assert fetch(weights, patience=HASTY).read_bytes() == CONTENT
    assert [wanted for _, wanted in file_server.asked] == ["bytes=1000-", None]


def test_a_rest_longer_than_the_file(weights: Weights, file_server: Any) -> None:
    store().mkdir(parents=True)
    (store() / f"{NAME}.part").write_bytes(CONTENT + b"x")
    assert fetch(weights, patience=HASTY).read_bytes() == CONTENT
    assert [wanted for _, wanted in file_server.asked] == [f"bytes={len(CONTENT) + 1}-", None]


def test_a_rest_that_begins_elsewhere_is_not_taken(weights: Weights, file_server: Any, monkeypatch) -> None:
    store().mkdir(parents=True)
    (store() / f"{NAME}.part").write_bytes(CONTENT[:1000])
    get = requests.get

    def elsewhere(url: str, *, headers: dict[str, str], **options: Any) -> requests.Response:
        answer = get(url, headers=headers, **options)
        answer.headers["Content-Range"] = "bytes 7-"
        return answer

    monkeypatch.setattr(requests, "get", elsewhere)
    assert fetch(weights, patience=HASTY).read_bytes() == CONTENT
    assert [wanted for _, wanted in file_server.asked] == ["bytes=1000-", None]


def test_killed_before_the_last_step(weights: Weights, file_server: Any) -> None:
    store().mkdir(parents=True)
    (store() / f"{NAME}.part").write_bytes(CONTENT)
    assert fetch(weights, patience=HASTY).read_bytes() == CONTENT
    assert file_server.asked == []


def test_a_host_that_hangs_costs_its_timeout(weights: Weights, file_server: Any, mirror_server: Any) -> None:
    file_server.seconds = 5.0
    mirror_server.files[PATH] = CONTENT
    started = time.monotonic()
    fetch(weights, mirrors=[mirror_server.address], patience=HASTY)
    assert time.monotonic() - started < 3.0
    assert "no answer within 0.5 s" in failure(Weights(weights.url.replace("row_", "other_"), SHA))


# --- wrong content, other places -----------------------------------------------------------------------


def test_wrong_content_is_removed_and_the_mirror_tried(
    weights: Weights, file_server: Any, mirror_server: Any, capsys
) -> None:
    file_server.files[PATH] = b"not it"
    message = failure(weights)
    assert f"another file (its SHA-256 begins with {hashlib.sha256(b'not it').hexdigest()[:8]}" in message
    assert leftovers() == []
    mirror_server.files[PATH] = CONTENT
    assert fetch(weights, mirrors=[mirror_server.address], patience=HASTY).read_bytes() == CONTENT
    assert "another file" in capsys.readouterr().err


def test_a_web_page_is_no_file(weights: Weights, file_server: Any) -> None:
    store().mkdir(parents=True)
    (store() / f"{NAME}.part").write_bytes(CONTENT[:1000])
    file_server.content_type = "text/html; charset=utf-8"
    assert "answers with a web page" in failure(weights)
    assert (store() / f"{NAME}.part").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("path", [PATH, PATH.split("/", 2)[2], f"row/{NAME}", NAME])
def test_not_there_then_a_mirror(
    path: str, weights: Weights, file_server: Any, mirror_server: Any, monkeypatch, capsys
) -> None:
    del file_server.files[PATH]
    mirror_server.files[f"files/{path}"] = CONTENT
    monkeypatch.setenv("GCNET_MIRRORS", f"{file_server.address}/x, {mirror_server.address}/files/")
    assert fetch(weights, patience=HASTY).read_bytes() == CONTENT
    assert mirror_server.asked[-1] == (f"/files/{path}", None)
    assert f"{file_server.address[7:]}: 404 Not Found; trying the next place" in capsys.readouterr().err


def test_listed_mirrors_come_before_those_of_the_environment(
    weights: Weights, file_server: Any, mirror_server: Any, monkeypatch
) -> None:
    file_server.status = 503
    mirror_server.files = {f"{place}/{NAME}": CONTENT for place in "ab"}
    monkeypatch.setenv("GCNET_MIRRORS", f"{mirror_server.address}/b")
    fetch(weights, mirrors=[f"{mirror_server.address}/a"], patience=HASTY)
    assert mirror_server.asked[-1] == (f"/a/{NAME}", None)


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_a_mirror(form: str, weights: Weights, file_server: Any, tmp_path: Path, capsys) -> None:
    file_server.status = 500
    disk = tmp_path / "a disk"
    disk.mkdir()
    (disk / NAME).write_bytes(b"damaged")
    assert "another file" in failure(weights, mirrors=[form.format(disk)])
    (disk / NAME).write_bytes(CONTENT)
    assert fetch(weights, mirrors=[form.format(disk)], patience=HASTY).read_bytes() == CONTENT
    assert (disk / NAME).is_file()
    assert f"copying {disk / NAME}" in capsys.readouterr().err


def test_offline_is_one_line_that_says_what_to_put_where(home: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"  # nobody listens
    url = f"http://{address}/{PATH}"
    message = failure(Weights(url, SHA), mirrors=[str(tmp_path / "nowhere")])
    assert message == (
        f"cannot fetch {NAME} ({address}: no connection; {tmp_path}/nowhere/{NAME}: no such file): "
        f"get {url} by hand and put it into {home}/weights, or name a mirror (--mirror or GCNET_MIRRORS)"
    )


def test_reasons_are_a_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    assert "(a.invalid: host not found)" in failure(Weights(f"https://a.invalid/{PATH}", SHA))
    mistake = failure(Weights(f"https://a.invalid/{PATH}", SHA), mirrors=["ftp://b.invalid"])
    assert "b.invalid: not an address that begins with http(s):// or file://)" in mistake


# --- the disk ------------------------------------------------------------------------------------------


def test_a_disk_without_room_is_not_filled(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 10, 1_000_000))
    assert f"no room for {NAME}: 3 MB more are needed in {store()}" in failure(weights)
    assert leftovers() == []


def test_a_disk_that_fills_up(weights: Weights, file_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = transfer._chunks

    def full(response: Any) -> Iterator[bytes]:
        yield CONTENT[:1_000_000]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(transfer, "_chunks", full)
    message = failure(weights)
    assert f"cannot write in {store()}: No space left on device; free space there" in message
    monkeypatch.setattr(transfer, "_chunks", chunks)
    assert fetch(weights, patience=HASTY).read_bytes() == CONTENT
    assert file_server.asked[-1] == (f"/{PATH}", "bytes=1000000-")


def test_a_cache_that_cannot_be_made(weights: Weights, home: Path) -> None:
    home.write_text("a file where the folder should be")
    assert f"cannot write in {home / 'weights'}" in failure(weights)


# --- several processes ---------------------------------------------------------------------------------


def test_two_processes_fetch_once(weights: Weights, file_server: Any) -> None:
    file_server.seconds = 1.0  # long enough for the second to come in between
    script = (
        "from gcnet.weights.catalog import Weights; from gcnet.weights.fetch import fetch;"
        f"fetch(Weights({weights.url!r}, {SHA!r}))"
    )
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [process.wait(timeout=30) for process in both] == [0, 0]
    assert len(file_server.asked) == 1
    assert (store() / NAME).read_bytes() == CONTENT
    assert leftovers() == []


# --- words that stand for files --------------------------------------------------------------------------


def test_a_run_folder_stands_for_its_best_model(tmp_path: Path) -> None:
    with pytest.raises(GCNetError, match="not a run"):
        find_source(tmp_path)
    for name in ("last", "best"):
        (tmp_path / f"{name}.safetensors").touch()
        assert find_source(str(tmp_path)) == Source(None, tmp_path / f"{name}.safetensors")
    file = tmp_path / "last.safetensors"
    assert find_source(file) == Source(None, file)
    assert find_source(file).fetch() == LocalFile(file)
    assert find_source("mask_rcnn_tiny", tmp_path).place == tmp_path / "best.safetensors"
    with pytest.raises(GCNetError, match="leave out --weights"):
        find_source(tmp_path, "coco")


def test_names_and_their_published_weights() -> None:
    row = find("mask_rcnn_r50_gc4")
    assert find_source(row.upstream[1]) == find_source(row.name, "coco") == Source(row, row.weights)
    with pytest.raises(GCNetError, match="mask_rcnn_tiny_gc4 has no published weights"):
        find_source("mask_rcnn_tiny_gc4")
    with pytest.raises(GCNetError, match="no such file or folder: runs/mien, and no model"):
        find("runs/mien")
    with pytest.raises(GCNetError, match="there is no model 'mask_rcnn_r50_gc5'"):
        find_source("mask_rcnn_r50_gc5")
    resnet = find_source("resnet50_gc4", "imagenet")
    assert isinstance(resnet.place, Weights)
    assert resnet.place.file == "resnet50-0676ba61.pth"
    with pytest.raises(GCNetError, match="those of a backbone alone"):
        find_source("mask_rcnn_r50", "imagenet")


def test_owner_and_name_is_a_repository_unless_the_owner_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_source("someone/model") == Source(None, "someone/model")
    assert find_source("mask_rcnn_tiny", "someone/model").place == "someone/model"
    (tmp_path / "runs").mkdir()
    for word in ("runs/typo", "someone/model.pth", "a/b/c", "/no/where"):
        with pytest.raises(GCNetError, match=f"no such file or folder: {word}"):
            find_source(word)
    Path("mine.pt2").touch()
    with pytest.raises(GCNetError, match=r"mine\.pt2 is an export; give the model that it was made of"):
        find_source("mine.pt2")


def test_a_mirror_over_plain_http_is_not_trusted_with_a_few_digits(tmp_path: Path) -> None:
    weights = Weights((tmp_path / "nothing.pth").as_uri(), "01234567")
    with pytest.raises(GCNetError, match="plain http"):
        fetch_file(
            weights, mirrors=["http://example.invalid"], patience=Patience(connect=0.1, tries=1, pause=0)
        )


def test_a_mirror_that_sends_too_much_is_left(
    file_server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcnet.weights.transfer.MOST_BYTES", 1000)
    file_server.files["nothing.pth"] = bytes(100_000)
    weights = Weights((tmp_path / "nothing.pth").as_uri(), "01234567")
    with pytest.raises(GCNetError, match="sends more than"):
        fetch_file(weights, mirrors=[file_server.address], patience=Patience(connect=1, tries=1, pause=0))


def test_another_address_and_another_file_of_the_same_weights(
    weights: Weights, file_server: Any, mirror_server: Any
) -> None:
    del file_server.files[PATH]
    other = hashlib.sha256(b"other").hexdigest()
    mirror_server.files |= {NAME: CONTENT, "model.safetensors": b"other"}
    again = Weights(f"{mirror_server.address}/{NAME}", SHA)
    elsewhere = Weights(f"{mirror_server.address}/model.safetensors", other, name="row.tv.safetensors")
    file = fetch(replace(weights, alternatives=(elsewhere,)), patience=HASTY)
    assert (file.name, file.read_bytes()) == ("row.tv.safetensors", b"other")
    assert fetch(replace(weights, alternatives=(again,)), patience=HASTY).read_bytes() == CONTENT
    mirror_server.files.clear()
    assert fetch(replace(weights, alternatives=(elsewhere,)), patience=HASTY).read_bytes() == CONTENT


def test_a_server_that_drips_is_left(weights: Weights, file_server: Any) -> None:
    file_server.drip = 0.05
    started = time.monotonic()
    assert "sends less than 1000 bytes a second" in failure(weights, patience=replace(HASTY, window=0.3))
    assert time.monotonic() - started < 3.0


def test_a_server_that_says_more_than_it_sends(weights: Weights, file_server: Any) -> None:
    file_server.cuts = [len(CONTENT) - 1] * 9
    file_server.ranges = False
    assert "the connection was cut" in failure(weights)


def test_https_does_not_lead_to_http(weights: Weights, file_server: Any, monkeypatch) -> None:
    get = requests.get
    monkeypatch.setattr(requests, "get", lambda _, **options: get(weights.url, **options))
    assert "leads to plain http" in failure(replace(weights, url=f"https://example.org/{NAME}"))
