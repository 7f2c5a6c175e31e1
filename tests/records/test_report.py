"""The report and the preview: their counts and drawings, and text of other people that stays text."""

import base64
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from common.openimages.funnel import DOWNLOAD_NAME, Stage, counts_path, write_stages
from common.records.examples import example_features
from common.records.report import (
    GALLERY_BYTES,
    IMAGES,
    MASK_OPACITY,
    class_colour,
    gather,
    place_names,
    write_preview,
    write_report,
)
from tests.support.step7 import mask_of, record_work

EVIL = "<script>alert('x')</script>\"&"


def scene(size: tuple[int, int] = (256, 192), colour: str = "navy", noise: bool = False) -> bytes:
    """Return an image of one rectangle, from a quarter to a half of width and height, on grey."""
    width, height = size
    image = Image.effect_noise(size, 200).convert("RGB") if noise else Image.new("RGB", size, "grey")
    ImageDraw.Draw(image).rectangle((width // 4, height // 4, width // 2, height // 2), fill=colour)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=95)
    return stream.getvalue()


def record(
    number: int = 1,
    classes: int = 1,
    name: str = "a1",
    photo: bytes | None = None,
    size=(256, 192),
    **attributes,
):
    ids = {f"/m/{index}": index for index in range(1, classes + 1)}
    box = {"label": f"/m/{number}", "x0": 0.25, "x1": 0.5, "y0": 0.25, "y1": 0.5, **attributes}
    texts = {mid: mid for mid in ids}
    return example_features(
        record_work({"id": name, "annotations": [box]}, size), photo or scene(size), ids, texts,
        missing_masks="empty" if "mask" in attributes else None,
    )  # fmt: skip


# --- counts and drawings -----------------------------------------------------------------------------------


def test_one_pass_counts_boxes_classes_and_attributes():
    counters, gallery = gather(
        [record(1, 2, occluded=1), record(2, 2, "b", group_of=1, inside=0), record(2, 2, "c", size=(64, 64))],
        {1: "Cat", 2: "Dog"},
    )
    assert (counters["boxes"], counters["images"]) == ({1: 1, 2: 2}, {1: 1, 2: 2})
    assert counters["boxes of an image"] == {1: 3}
    assert counters["occluded"] == {1: 1, -1: 2}
    assert counters["group_of"] == {0: 2, 1: 1}
    assert counters["sizes"] == {5: 3}  # a quarter of the side
    assert counters["sides"] == {4: 2, 1: 1}
    assert re.findall("<figcaption>(.*)</figcaption>", "".join(gallery)) == ["a1", "b", "c"]


MORE_THAN_FIT = 250  # images of noise: without a limit of the gallery they would make the page too large


def test_the_page_is_under_ten_megabytes_for_any_data_set(tmp_path):
    photo = scene((256, 256), noise=True)
    records = (record(index + 1, 601, f"i{index}", photo, (256, 256)) for index in range(MORE_THAN_FIT))
    assert len(photo) > 20_000
    path = tmp_path / "report.html"
    classes = [(f"/m/{number}", "x" * 60) for number in range(1, 602)]
    write_report(path, records, classes, {"records": MORE_THAN_FIT, "boxes": MORE_THAN_FIT}, [], {})
    assert 0.9 * GALLERY_BYTES < path.stat().st_size < 10_000_000


CROWDED = {  # of classes, images, and boxes of an image the number; a class's name
    "many boxes": (601, 150, 500, "x" * 60),
    "long names": (601, 300, 50, "x" * 500),
    "all classes": (20_000, 800, 1, "x" * 40),
}


@pytest.mark.parametrize(("classes", "images", "boxes", "name"), CROWDED.values(), ids=CROWDED)
def test_boxes_and_names_do_not_make_the_page_larger(tmp_path, classes, images, boxes, name):
    ids = {f"/m/{number}": number for number in range(1, classes + 1)}
    texts, photo = {mid: mid for mid in ids}, scene()
    box = {"x0": 0.25, "x1": 0.5, "y0": 0.25, "y1": 0.5}
    some = ([{"label": mid, **box}] * boxes for mid in list(ids)[:images])
    works = (
        record_work({"id": f"i{index}", "annotations": many}, (256, 192)) for index, many in enumerate(some)
    )
    records = (example_features(work, photo, ids, texts) for work in works)
    path = tmp_path / "report.html"
    write_report(path, records, [(mid, name) for mid in ids], {"records": 1, "boxes": 1}, [], {})
    assert "<figure " in path.read_text()
    assert path.stat().st_size < 10_000_000


def test_the_same_records_give_the_same_page(tmp_path):
    pages = []
    for name in ("a", "b"):
        write_report(tmp_path / name, [record()], [("/m/1", "Cat")], {"records": 1, "boxes": 1}, [], {})
        pages.append((tmp_path / name).read_bytes())
    assert pages[0] == pages[1]


def test_names_and_reasons_are_text_and_no_markup(tmp_path):
    path = tmp_path / "report.html"
    losses = {f"{EVIL}.csv": {EVIL: 3}}
    stages = [Stage(3, EVIL, 1, 1, {EVIL: 2})]
    write_report(path, [record(name=EVIL)], [("/m/1", EVIL)], {"records": 1, "boxes": 1}, stages, losses)
    page = path.read_text()
    assert "<script>alert" not in page
    assert html.unescape(page).count(EVIL) >= 8
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)


def test_the_preview_draws_boxes_on_objects(tmp_path):
    path = tmp_path / "preview.jpg"
    write_preview(path, [record(size=(300, 300)) for _ in range(IMAGES)], {1: "Kočka\nMačka"})
    with Image.open(path) as sheet:
        assert sheet.size == (4 * 308 + 8, 4 * 308 + 8)
        for left, top in ((8, 8), (3 * 308 + 8, 3 * 308 + 8)):
            for x, y, colour in (
                (75, 120, class_colour(1)), (149, 120, class_colour(1)), (120, 149, class_colour(1)),
                (110, 110, (0, 0, 128)), (250, 250, (128, 128, 128)),
            ):  # fmt: skip
                pixel = np.asarray(sheet)[top + y, left + x].astype(int)
                assert np.abs(pixel - colour).max() < 60, (
                    x,
                    y,
                    pixel,
                )


def test_the_preview_draws_masks_under_boxes(tmp_path):
    mask = mask_of((300, 300), (75, 75, 112, 150))  # the left half of the object
    path = tmp_path / "preview.jpg"
    write_preview(path, [record(size=(300, 300), mask=mask), record(size=(300, 300))], {1: "Cat"})
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet).astype(int)
    inside, beside, without = pixels[128, 98], pixels[128, 138], pixels[128, 308 + 98]
    expected = np.average([class_colour(1), (0, 0, 128)], axis=0, weights=[MASK_OPACITY, 255 - MASK_OPACITY])
    assert np.abs(inside - expected).max() < 30
    assert np.abs(beside - (0, 0, 128)).max() < 30
    assert np.abs(without - (0, 0, 128)).max() < 30


def test_the_gallery_has_the_masks_of_its_boxes(tmp_path):
    mask = mask_of((512, 384), (128, 96, 200, 192))
    path = tmp_path / "report.html"
    records = [record(size=(512, 384), mask=mask), record(name="b")]
    write_report(path, records, [("/m/1", "Cat")], {"records": 2, "boxes": 2}, [], {})
    (found,) = re.findall(r'<image data-class="1" .*href="data:image/png;base64,([^"]+)"', path.read_text())
    with Image.open(io.BytesIO(base64.b64decode(found))) as image:
        shape = np.asarray(image.convert("RGBA"))
    assert shape.shape == (192, 256, 4)
    expected = np.zeros((192, 256, 4), np.uint8)
    expected[:, :, :3] = shape[0, 0, :3]
    expected[48:96, 64:100] = (*class_colour(1), MASK_OPACITY)
    np.testing.assert_array_equal(shape, expected)


def test_masks_do_not_make_the_page_larger(tmp_path):
    """Masks and images of noise: no others take more."""
    from common.images.masks import encode_mask

    noise = np.random.default_rng(1)
    pixels = (np.asfortranarray(noise.integers(0, 2, (192, 256)), np.uint8) for _ in range(10))
    masks = [{"size": (192, 256), "counts": encode_mask(each)} for each in pixels]
    photo = scene(noise=True)
    records = (record(i + 1, 601, f"i{i}", photo, mask=masks[i % 10]) for i in range(MORE_THAN_FIT))
    path = tmp_path / "report.html"
    classes = [(f"/m/{number}", "x" * 60) for number in range(1, 602)]
    write_report(path, records, classes, {"records": MORE_THAN_FIT, "boxes": MORE_THAN_FIT}, [], {})
    assert 0.9 * GALLERY_BYTES < path.stat().st_size < 10_000_000


SIZE = (300, 200)  # pixels
CROWDS = {
    "the same box often": [(50, 250, 50, 150)] * 40,
    "in each other": [(5 * n, 300 - 5 * n, 3 * n, 200 - 3 * n) for n in range(25)],
    "at the edges": [
        (0, 9, 0, 9),
        (291, 300, 0, 9),
        (0, 9, 191, 200),
        (291, 300, 191, 200),
        (0, 300, 0, 200),
    ],
    "small ones": [(x, x + 12, y, y + 8) for x in range(0, 288, 13) for y in range(0, 190, 9)],
}


@pytest.mark.parametrize(
    "name", ["Cat", "Kočka\nMačka", "", "A class with a name that is wider than any image is"]
)
@pytest.mark.parametrize("boxes", CROWDS.values(), ids=CROWDS)
def test_names_are_in_the_image_and_cover_no_other(boxes, name):
    places = place_names(boxes, [name] * len(boxes), SIZE, 16)
    found = [place for place in places if place]
    assert found
    assert len(name) > 20 or all(x >= 0 and x + width <= 300 and 0 <= y <= 184 for x, y, width in found)
    for one, (x, y, width) in enumerate(found):
        for left, top, other in found[:one]:
            assert x >= left + other or left >= x + width or abs(y - top) >= 16


# --- through the step --------------------------------------------------------------------------------------


@pytest.fixture
def inputs(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    points = []
    for index in range(9):
        (tmp_path / f"images/p{index}.jpg").write_bytes(scene())
        label = "/m/01yrx" if index % 3 else "/m/0bt9lr"
        box = {"label": label, "x0": 0.25, "x1": 0.5, "y0": 0.25, "y1": 0.5}
        points.append({"id": f"p{index}", "annotations": [box]})
    lost = {**points[0], "id": "lost", "annotations": [*points[0]["annotations"], {**box, "label": "/m/0"}]}
    (tmp_path / "points.json").write_text(json.dumps([*points, lost]))
    (tmp_path / "classes.txt").write_text("/m/01yrx\n/m/0bt9lr\n")
    (tmp_path / "names.csv").write_text(
        f'/m/01yrx,"Cat {EVIL.replace(chr(34), chr(34) * 2)}"\n/m/0bt9lr,Dog\n'
    )
    (tmp_path / "failures.csv").write_text("id,reason,detail,url\na,gone,,\nb,gone,,\nc,timeout,,\n")
    return tmp_path


def make_report(script, folder: Path, *flags: object):
    return script(
        "record_maker", "--points_path", folder / "points.json", "--saved_images_directory", folder / "images",
        "--trainable_classes_path", folder / "classes.txt", "--class_description_path", folder / "names.csv",
        "--record_save_path", folder / "out/data.tfrecord", "--num_shards", 2, "--workers", 1,
        "--report_path", folder / "out/report.html", "--preview_path", folder / "out/preview.jpg", *flags,
    )  # fmt: skip


def test_report_and_preview_show_the_records_and_the_losses(script, inputs):
    outcome = make_report(script, inputs, "--failures_path", inputs / "failures.csv")
    assert outcome.code == 0, outcome.err
    page = (inputs / "out/report.html").read_text()
    assert page.count("<figure ") == 9
    rows = re.findall(r'<tr><td>([^<]*)</td><td>([^<]*)</td><td class="n">(\d+)</td></tr>', page)
    assert rows == [
        (f"{inputs}/failures.csv", "gone", "2"), (f"{inputs}/failures.csv", "timeout", "1"),
        ("record_maker.py", "other classes", "1"),
    ]  # fmt: skip
    assert "<td>1 missing</td></tr>" in page
    with Image.open(inputs / "out/preview.jpg") as preview:
        assert preview.size == (4 * 308 + 8, 3 * 308 + 8)


def test_the_funnel_begins_with_the_rows(script, inputs):
    before = [
        Stage(3, "rows", 4000, 4000), Stage(3, "kept boxes", 4000, 20, {"other_classes": 3980}),
        Stage(3, "images", 11, 11), Stage(4, "downloaded", 11, 10, {"gone": 1}), Stage(5, "verified", 11, 10),
    ]  # fmt: skip
    write_stages(counts_path(inputs / "points.json"), before, inputs / "points.json")
    outcome = make_report(script, inputs)
    assert "  kept boxes     20  3,980 other classes\n" in outcome.err
    page = (inputs / "out/report.html").read_text()
    rows = re.findall(r'<tr><td>(\d)</td><td>([^<]*)</td><td class="n">([^<]*)</td>', page)
    assert rows == [
        ("3", "rows", "4,000"), ("3", "kept boxes", "20"), ("3", "images", "11"),
        ("4", "downloaded", "10"), ("5", "verified", "10"), ("7", "records", "9"),
    ]  # fmt: skip


def test_what_step_4_lost_is_not_listed_again_as_missing(script, inputs):
    write_stages(inputs / "images" / DOWNLOAD_NAME, [Stage(4, "downloaded", 10, 9, {"gone": 1})])
    assert make_report(script, inputs).code == 0
    page = (inputs / "out/report.html").read_text()
    assert re.findall(r"<tr><td>(\d)</td>.*?<td>([^<]*)</td></tr>", page) == [("4", "1 gone"), ("7", "")]


def test_records_with_labels_alone_have_a_report(script, inputs):
    label = {"label": "/m/01yrx", "confidence": 1}
    points = [{"id": f"p{index}", "annotations": [], "image_labels": [label]} for index in range(9)]
    (inputs / "points.json").write_text(json.dumps(points))
    outcome = make_report(script, inputs)
    assert outcome.code == 0, outcome.err
    assert "Box sizes</b> <small>highest: 0<" in (inputs / "out/report.html").read_text()


def test_an_image_that_cannot_be_drawn_is_named(script, inputs):
    """Without step 5 such images reach the records."""
    path = inputs / "images/p3.jpg"
    path.write_bytes(path.read_bytes()[:-5])
    outcome = make_report(script, inputs)
    assert outcome.code == 1
    assert re.fullmatch(
        r"record_maker.py: image p3 cannot be decoded \(image file is truncated .*\); run process_images.py\n",
        outcome.err,
    )


def test_a_bad_failures_file_is_an_error_before_anything_is_written(script, inputs):
    outcome = make_report(script, inputs, "--failures_path", inputs / "names.csv")
    assert outcome.code == 1
    assert "the header id,reason,detail,url was expected" in outcome.err
    assert not (inputs / "out").exists()


# --- in a browser ------------------------------------------------------------------------------------------


def browse(page: Path, *flags: str, view: str = "") -> subprocess.CompletedProcess[str]:
    chromium = shutil.which("chromium")
    assert chromium, "chromium is needed: make system-packages"
    return subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000",
         "--disable-background-networking", f"--user-data-dir={page.parent}/browser", "--enable-logging=stderr", *flags,
         f"{page.as_uri()}{view}"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip


@pytest.mark.system
@pytest.mark.parametrize("classes", [1, 601])
def test_the_page_works_in_a_browser(tmp_path, classes):
    page = tmp_path / "report.html"
    records = [record(index % classes + 1, classes, f"i{index}") for index in range(classes + 4)]
    names = [(f"/m/{index}", f"Name {index} {EVIL}") for index in range(1, classes + 1)]
    write_report(page, records, names, {"records": len(records), "boxes": len(records)}, [], {})

    # The policy refuses every request, and a refused one is a console error.
    assert "default-src 'none'; img-src data:;" in page.read_text()
    shown = browse(page, "--dump-dom")
    assert "CONSOLE" not in shown.stderr
    assert shown.stdout.count('<figure data-classes="') == len(re.findall("<figcaption>", page.read_text()))
    assert "hidden" not in shown.stdout.split("<tbody>")[1].split("</tbody>")[0]

    last = classes
    filtered = browse(page, "--dump-dom", view=f"#class={last}&search=/m/{last}").stdout
    figures = re.findall(r'<figure data-classes="(\d+)" style="[^"]*"( hidden="")?>', filtered)
    assert {int(number) for number, hidden in figures if not hidden} == {last}
    assert all(hidden for number, hidden in figures if int(number) != last)
    rows = re.findall(r"<tr( hidden=\"\")?><td class=\"n\">(\d+)<", filtered)
    assert [int(number) for hidden, number in rows if not hidden] == [last]

    ordered = browse(page, "--dump-dom", view="#sort=0").stdout
    numbers = [int(number) for number in re.findall(r"<tr><td class=\"n\">(\d+)<", ordered)]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.system
def test_a_screenshot_shows_boxes_on_objects(tmp_path):
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    write_report(page, [record()], [("/m/1", "Cat")], {"records": 1, "boxes": 1}, [], {})
    browse(page, f"--screenshot={shot}", "--window-size=1200,2400")
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    blue = (pixels[:, :, 2] > 90) & (pixels[:, :, :2].max(axis=2) < 30)
    blue[:1000] = False  # above are the charts
    ys, xs = np.nonzero(blue)
    left, right, top, bottom = xs.min(), xs.max(), ys.min(), ys.max()
    assert 55 <= right - left <= 66, "the rectangle is a quarter of 256 pixels wide"
    away = np.abs(pixels - class_colour(1)).sum(axis=2)
    for x, y in ((left, (top + bottom) // 2), (right, (top + bottom) // 2), ((left + right) // 2, bottom)):
        assert away[y - 4 : y + 5, x - 4 : x + 5].min() < 40


LAYOUT = """<script>
const boxes = selector => [...document.querySelectorAll(selector)].map(one => one.getBoundingClientRect());
const covered = [...document.querySelectorAll("figure")].flatMap(figure => {
  const names = [...figure.querySelectorAll("text")].map(one => one.getBoundingClientRect());
  return names.flatMap((a, place) => names.slice(place + 1).map(b =>
    Math.min(Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top))));
});
const rows = Map.groupBy(boxes("#gallery img"), box => Math.round(box.top));
const heights = [...rows.values()].map(row => Math.max(...row.map(box => box.height)) - Math.min(...row.map(box => box.height)));
document.title = JSON.stringify({covered: Math.max(...covered), rows: rows.size, images: boxes("#gallery img").length,
  heights: Math.max(...heights), right: Math.max(...boxes("#gallery img").map(box => box.right))});
</script>"""


@pytest.mark.system
def test_images_of_a_row_have_one_height_and_names_do_not_cover_each_other(tmp_path):
    page = tmp_path / "report.html"
    records = []
    for index, size in enumerate([(256, 192), (192, 256), (256, 64), (60, 256), (256, 256)] * 4):
        boxes = [
            {"label": "/m/1", "x0": x / 10, "x1": x / 10 + 0.3, "y0": y / 10, "y1": y / 10 + 0.3}
            for x in range(7) for y in range(7)
        ]  # fmt: skip
        work = record_work({"id": f"i{index}", "annotations": boxes}, size)
        records.append(example_features(work, scene(size), {"/m/1": 1}, {"/m/1": "/m/1"}))
    write_report(page, records, [("/m/1", "Training bench")], {"records": 20, "boxes": 980}, [], {})
    page.write_text(page.read_text().replace("</body>", f"{LAYOUT}</body>").replace('loading="lazy" ', ""))
    (title,) = re.findall(
        "<title>(.*?)</title>", browse(page, "--dump-dom", "--window-size=1200,2400").stdout
    )[:1]
    found = json.loads(html.unescape(title))
    assert (found["images"], found["rows"] < 8) == (20, True)
    assert found["heights"] < 1.5  # pixels
    assert found["covered"] < 2.5
    assert found["right"] <= 1200
