"""Steps 4, 5 and 7 on gs:// addresses, by gcsfs and an emulator of Google's store: the files of a local folder."""

import io
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from common.cli import InputError
from common.files.json_files import json_writer
from common.files.places import folder_of, parse_path, read_small
from common.files.whole_files import locked_folder

pytestmark = pytest.mark.interop

NUMBER = 30
BOX = {"label": "/m/01yrx", "x0": 0.25, "x1": 0.5, "y0": 0.125, "y1": 0.75}


class Photos(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def bucket(monkeypatch):
    from gcp_storage_emulator.server import create_server

    store = create_server("localhost", 0, in_memory=True, default_bucket="bucket")
    store.start()
    port = store._api._httpd.server_address[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{port}")
    yield "gs://bucket"
    store.stop()


@pytest.fixture
def photos(tmp_path):
    """Return the base address of a server of photos: p0.jpg and so on."""
    folder = tmp_path / "served"
    folder.mkdir()
    for number in range(NUMBER):
        stream = io.BytesIO()
        Image.effect_noise((640, 480), 10 + number).convert("RGB").save(stream, "JPEG")
        (folder / f"p{number}.jpg").write_bytes(stream.getvalue())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Photos, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def steps(place: str, classes) -> dict[str, list[object]]:
    """Return the arguments of steps 4, 5 and 7 that work in a folder, or below an address."""
    return {
        "download_images": [
            "--images_path", f"{place}/index.json", "--images_output_directory", f"{place}/photos",
            "--image_source", "original", "--processes", 1,
        ],
        "process_images": [
            "--image_directory", f"{place}/photos", "--image_saving_directory", f"{place}/resized",
            "--datapoints_input_path", f"{place}/points.json",
            "--datapoints_output_path", f"{place}/points-resized.json", "--workers", 1,
        ],
        "record_maker": [
            "--points_path", f"{place}/points-resized.json", "--saved_images_directory", f"{place}/resized",
            "--trainable_classes_path", classes, "--record_save_path", f"{place}/records/train.tfrecord",
            "--num_shards", 2, "--workers", 1, "--verify",
        ],
    }  # fmt: skip


def contents(place: str) -> dict[str, bytes | None]:
    """Return the photos and records below a place."""
    found: dict[str, bytes | None] = {}
    for name in ("photos", "resized", "records"):
        folder = parse_path(f"{place}/{name}")
        names = (
            folder_of(folder).list("")
            if place.startswith("gs:")
            else [path.name for path in folder.iterdir()]
        )
        found |= {f"{name}/{file}": read_small(folder / file) for file in names if not file.startswith(".")}
    return found


def test_three_steps_on_googles_store_leave_what_they_leave_on_a_disk(script, photos, bucket, tmp_path):
    (tmp_path / "classes.txt").write_text("/m/01yrx\n")
    places = str(tmp_path / "here"), f"{bucket}/there"
    for place in places:
        with json_writer(f"{place}/index.json") as write:
            for number in range(NUMBER + 1):  # the last one is gone
                write({"id": f"p{number}", "url": f"{photos}/p{number}.jpg"})
        with json_writer(f"{place}/points.json") as write:
            for number in range(NUMBER + 1):
                write({"id": f"p{number}", "annotations": [BOX]})
    for way in ("new", "again"):
        outcomes = [
            [script(name, *arguments) for name, arguments in steps(place, tmp_path / "classes.txt").items()]
            for place in places
        ]
        assert [outcome.code for outcome in outcomes[1]] == [0, 0, 0], outcomes[1]
        assert [outcome.out for outcome in outcomes[0]] == [outcome.out for outcome in outcomes[1]], way
    assert outcomes[1][2].counts["verified_records"] == NUMBER
    here, there = map(contents, places)
    assert len(there) == 2 * NUMBER + 8  # lists of three steps, records and manifest, counts of two
    assert here == there


def test_a_second_run_is_refused_though_the_emulator_lets_any_put_replace_an_object(bucket):
    refused = f"; if it was killed, remove {bucket}/images/.lock$"
    with (
        locked_folder(f"{bucket}/images"),
        pytest.raises(InputError, match=refused),
        locked_folder(f"{bucket}/images"),
    ):
        pass
    with locked_folder(f"{bucket}/images"):
        pass
