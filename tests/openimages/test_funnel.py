"""The counts that steps leave beside their outputs, and which of them a later step takes for its own."""

import json

import pytest

from common.files.json_files import json_writer
from common.openimages.funnel import (
    DOWNLOAD_NAME,
    Stage,
    add_stage,
    counts_path,
    read_stages,
    say_funnel,
    write_stages,
)

ROWS = [
    Stage(3, "rows", 90, 90),
    Stage(3, "kept boxes", 90, 40, {"other_classes": 50}),
    Stage(3, "images", 20, 20),
]
DOWNLOADED = Stage(4, "downloaded", 20, 17, {"gone": 2, "timeout": 1})
VERIFIED = Stage(5, "verified", 20, 15, {"missing": 3, "truncated": 2})
RECORDS = Stage(7, "records", 15, 15)

CHAINS = {
    "all": ([*ROWS, DOWNLOADED], VERIFIED, [*ROWS, DOWNLOADED, Stage(5, "verified", 20, 15, {"truncated": 2})]),
    "no download": (ROWS, VERIFIED, [*ROWS, VERIFIED]),
    "a download of other images": ([*ROWS, Stage(4, "downloaded", 99, 99)], VERIFIED, [*ROWS, VERIFIED]),
    "rows of other images": ([Stage(3, "images", 8, 8), DOWNLOADED], VERIFIED,
                             [DOWNLOADED, Stage(5, "verified", 20, 15, {"truncated": 2})]),
    "images that were deleted": ([DOWNLOADED], Stage(5, "verified", 20, 10, {"missing": 10}),
                                 [DOWNLOADED, Stage(5, "verified", 20, 10, {"missing": 7})]),
    "the last of all steps": ([*ROWS, DOWNLOADED, VERIFIED], RECORDS, [*ROWS, DOWNLOADED, VERIFIED, RECORDS]),
    "datapoints of another run": ([*ROWS, VERIFIED], Stage(7, "records", 9, 9), [Stage(7, "records", 9, 9)]),
    "nothing before": ([], RECORDS, [RECORDS]),
}  # fmt: skip


@pytest.mark.parametrize(("before", "last", "expected"), CHAINS.values(), ids=CHAINS)
def test_only_stages_of_the_same_images_are_joined(before, last, expected):
    assert add_stage(before, last) == expected


@pytest.mark.parametrize("where", ["disk", "store"])
def test_counts_are_read_back_beside_their_output_and_no_other(tmp_path, request, where):
    folder = tmp_path if where == "disk" else request.getfixturevalue("bucket")
    points = f"{folder}/points.json.gz"
    with json_writer(points) as write:
        write({"id": "a"})
    path = counts_path(points)
    assert path.name == "points.json.gz.counts.json"
    assert read_stages(points, path.parent) == []
    write_stages(path, ROWS, points)
    write_stages(path.parent / DOWNLOAD_NAME, [DOWNLOADED])
    assert read_stages(points, path.parent) == [*ROWS, DOWNLOADED]
    with json_writer(points) as write:  # by hand, or by a run that was killed before it wrote its counts
        write({"id": "another"})
    assert read_stages(points, path.parent) == [DOWNLOADED]


@pytest.mark.parametrize("text", ["{", "[]", '{"bytes": null}', '{"bytes": null, "stages": [{"step": 4}]}'])
def test_a_damaged_file_of_counts_is_left_out_and_named(tmp_path, capsys, text):
    (tmp_path / DOWNLOAD_NAME).write_text(text)
    assert read_stages(tmp_path / "points.json", tmp_path) == []
    assert (
        capsys.readouterr().err
        == f"{tmp_path}/{DOWNLOAD_NAME}: not the counts of a step, they are left out\n"
    )


def test_the_funnel_is_a_table(capsys):
    say_funnel([*ROWS, DOWNLOADED])
    assert capsys.readouterr().err.splitlines() == [
        "From rows to records:",
        "  rows        90",
        "  kept boxes  40  50 other classes",
        "  images      20",
        "  downloaded  17  2 gone, 1 timeout",
    ]
    say_funnel([RECORDS])
    assert capsys.readouterr().err == ""


def test_a_file_of_counts_is_as_documented(tmp_path):
    write_stages(tmp_path / DOWNLOAD_NAME, [DOWNLOADED])
    assert json.loads((tmp_path / DOWNLOAD_NAME).read_text()) == {
        "bytes": None,
        "stages": [
            {
                "step": 4,
                "name": "downloaded",
                "came_in": 20,
                "went_out": 17,
                "lost": {"gone": 2, "timeout": 1},
            }
        ],
    }
