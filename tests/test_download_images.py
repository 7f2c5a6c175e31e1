"""Step 4: an index in; whole photos, a list of the others and exact counts out."""

import re
import subprocess
import sys
from base64 import b64encode
from hashlib import md5
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.downloads import (
    arguments,
    counts,
    failures,
    folder,
    good,
    photos,
    server,
    umask,
    write_index,
)
from tests.support.fault_server import photo, unused_port

__all__ = ["folder", "server"]


# --- what comes ----------------------------------------------------------------------------------


def test_photos_come_whole_and_are_not_fetched_again(script, server, folder):
    write_index(folder, [*good(server, 30), {"id": "x", "url": f"{server.base}/404/x"}])
    first = script("download_images", *arguments(folder))
    size = sum(len(photo(f"p{n}")) for n in range(30))
    assert (first.code, first.messages) == (
        0,
        f"1 of 31 images failed, 1 of them with gone, such as x: original: 404 Not Found ({server.base}/404/x); "
        f"--retry_failed requests these again; see {folder}/download_failures.csv\n",
    )
    assert first.counts == counts(images=31, downloaded=30, failed=1, gone=1, bytes=size)
    assert photos(folder) == {f"p{n}": photo(f"p{n}") for n in range(30)}
    assert (folder / "p0.jpg").stat().st_mode & 0o777 == 0o666 & ~umask()
    second = script("download_images", *arguments(folder))
    assert second.counts == counts(images=31, already_there=30, failed=1, gone=1)
    assert server.asked.total() == 31  # neither photos nor what is gone
    third = script("download_images", *arguments(folder, "--retry_failed"))
    assert third.counts == second.counts
    assert server.asked.total() == 32


def test_the_user_agent_is_ours_and_connections_are_kept(script, server, folder):
    write_index(folder, good(server, 40))
    script("download_images", *arguments(folder, "--threads", 4))
    assert {headers["user-agent"] for _, headers in server.requests} == {"open-images-to-tfrecords/1.0"}
    assert server.counts.connections <= 4


def test_at_most_so_many_connections_to_a_host_and_another_user_agent(script, server, folder):
    write_index(folder, good(server, 60))
    flags = ("--threads", 16, "--max_per_host", 3, "--processes", 2, "--user_agent", "mine/2")
    outcome = script("download_images", *arguments(folder, *flags))
    assert outcome.counts["downloaded"] == 60
    assert server.counts.most_open <= 3
    assert {headers["user-agent"] for _, headers in server.requests} == {"mine/2"}


# --- sources -------------------------------------------------------------------------------------

FULL = {"id": "a", "subset": "train"}
SOURCES: dict[tuple[str, ...], dict[str, tuple[dict[str, str | None], str, list[str]]]] = {
    # flags: of each image its routes, what comes (a route or a reason), and what was asked for
    ("--retries", "0"): {
        "the mirror first": ({"mirror": "good", "url": "good"}, "downloaded", ["mirror"]),
        "the original when the mirror has none": ({"mirror": "404", "url": "good"}, "downloaded", ["mirror", "url"]),
        "the original when the mirror gives a text": ({"mirror": "text", "url": "good"}, "downloaded", ["mirror", "url"]),
        "never for a page, as of a sign-in": ({"mirror": "html", "url": "good"}, "web_page", ["mirror"]),
        "never for a fault in passing": ({"mirror": "500", "url": "good"}, "server_error", ["mirror"]),
        "the last source's reason": ({"mirror": "404", "url": "403"}, "forbidden", ["mirror", "url"]),
        "the first fault in passing": ({"mirror": "404", "url": "reset"}, "connection", ["mirror", "url"]),
        "no mirror without a subset": ({"url": "good", "subset": None}, "downloaded", ["url"]),
        "no source at all": ({"subset": None}, "no_source", []),
    },
    ("--image_source", "original,mirror"): {
        "in another order": ({"mirror": "good", "url": "good"}, "downloaded", ["url"]),
    },
    ("--image_source", "mirror,original,thumbnail"): {
        "the thumbnail": ({"mirror": "404", "url": "404", "thumbnail_url": "good"}, "downloaded",
                          ["mirror", "url", "thumbnail_url"]),
    },
    ("--image_source", "thumbnail"): {
        "the thumbnail alone": ({"mirror": "good", "thumbnail_url": "good"}, "downloaded", ["thumbnail_url"]),
    },
}  # fmt: skip


@pytest.mark.parametrize("flags", SOURCES, ids=" ".join)
def test_sources_are_asked_in_order(script, server, folder, flags):
    names = {f"i{number}": name for number, name in enumerate(SOURCES[flags])}
    entries: list[dict[str, str]] = []
    asked: dict[str, list[str]] = {name: [] for name in SOURCES[flags]}

    def of_mirror(e) -> None:
        routes = SOURCES[flags][names[Path(e.path).stem]][0]
        server.routes[routes["mirror"]](e)

    server.routes["mirror"] = of_mirror
    for image_id, name in names.items():
        routes = SOURCES[flags][name][0]
        entries.append(
            {"id": image_id}
            | ({} if "subset" in routes else {"subset": "train"})
            | {key: f"{server.base}/{routes[key]}/{key}/{image_id}" for key in ("url", "thumbnail_url") if key in routes}
        )  # fmt: skip
    fine = f"{server.base}/good/url/fine"
    write_index(folder, [*entries, {"id": "fine", "url": fine, "thumbnail_url": fine}])
    outcome = script("download_images", *arguments(folder, "--mirror_url", f"{server.base}/mirror/", *flags))
    assert outcome.code == 0
    for path, _ in server.requests:
        first, *_, key, image_id = path[1:].removesuffix(".jpg").split("/")
        if image_id != "fine":
            asked[names[image_id]].append("mirror" if first == "mirror" else key)
    assert asked == {name: paths for name, (_, _, paths) in SOURCES[flags].items()}
    came = {name: failures(folder).get(image_id, ("downloaded",))[0] for image_id, name in names.items()}
    assert came == {name: reason for name, (_, reason, _) in SOURCES[flags].items()}
    assert photos(folder).keys() == {i for i, name in names.items() if came[name] == "downloaded"} | {"fine"}


def test_blanks_in_addresses_are_encoded_and_those_around_them_dropped(script, server, folder):
    entries = [{"id": "inner", "url": f"{server.base}/good/my image/inner"},
               {"id": "around", "url": f" \t{server.base}/good/around\r\n"},
               {"id": "thumbnail", "url": " ", "thumbnail_url": f"{server.base}/good/ thumbnail "},
               {"id": "none", "url": "  "}]  # fmt: skip
    write_index(folder, entries)
    outcome = script("download_images", *arguments(folder, "--image_source", "mirror,original,thumbnail"))
    assert (outcome.counts["downloaded"], outcome.counts["no_source"]) == (3, 1)
    assert set(server.asked) == {"/good/my%20image/inner", "/good/around", "/good/%20thumbnail"}


def test_a_source_not_tried_before_is_tried(script, server, folder):
    entries = [FULL | {"url": f"{server.base}/good/a"}, {"id": "b", "url": f"{server.base}/good/b"}]
    write_index(folder, entries)
    mirror = ("--mirror_url", server.base)  # which has no photos: 404
    first = script("download_images", *arguments(folder, *mirror, "--image_source", "mirror"))
    assert first.code == 1
    assert failures(folder) == {
        "a": ("gone", "mirror: 404 Not Found"),
        "b": ("no_source", "no address in the index for any --image_source"),
    }
    second = script("download_images", *arguments(folder, *mirror))
    assert (second.code, second.counts["downloaded"]) == (0, 2)
    assert server.asked == {"/train/a.jpg": 1, "/good/a": 1, "/good/b": 1}
    assert failures(folder) == {}


def test_what_failed_in_passing_is_tried_again_and_the_list_shrinks_and_is_the_same_otherwise(
    script, server, folder
):
    """By another mirror, as in each run of the demo: the last source's reason stays when only others are asked."""
    entries = [FULL | {"url": f"{server.base}/text/a"}, {"id": "b", "url": f"{server.base}/404/b"},
               {"id": "c", "url": f"{server.base}/good/c"}, {"id": "d", "url": f"{server.base}/error_then_good/d"}]  # fmt: skip
    write_index(folder, entries)
    refused = {
        "a": ("not_an_image", "original: not an image, 14 bytes of text/plain"),
        "b": ("gone", "original: 404 Not Found"),
    }
    for number in (1, 2):
        mirror = f"{server.base}/mirror{number}"  # a route that is not known: 404
        outcome = script("download_images", *arguments(folder, "--retries", 0, "--mirror_url", mirror))
        assert (outcome.code, outcome.counts["gone"], outcome.counts["server_error"]) == (0, 1, 2 - number)
        passing = {"d": ("server_error", "original: 500 Internal Server Error")} if number == 1 else {}
        assert failures(folder) == refused | passing
    asked = {"/text/a": 1, "/404/b": 1, "/good/c": 1, "/error_then_good/d": 2}
    assert server.asked == asked | {f"/mirror{number}/train/a.jpg": 1 for number in (1, 2)}


@pytest.mark.parametrize("flags", [(), ("--max_side", 20)])
def test_a_cut_image_and_a_page_in_an_image_s_place_are_tried_again(script, server, folder, flags):
    data = photo("sized")
    digest = b64encode(md5(data).digest()).decode()
    entries = [{"id": "cut", "url": f"{server.base}/cut_by_close/cut"},
               {"id": "sized", "url": f"{server.base}/cut_by_close/sized", "size": len(data), "md5": digest},
               {"id": "page", "url": f"{server.base}/sign_in/page"},
               {"id": "empty", "url": f"{server.base}/empty/empty"},
               {"id": "padded", "url": f"{server.base}/padded_until_close/padded"}]  # fmt: skip
    write_index(folder, entries)
    first = script("download_images", *arguments(folder, *flags))
    reasons = {"downloaded": 1, "connection": 2, "web_page": 1, "server_error": 1}
    assert {reason: first.counts[reason] for reason in reasons} == reasons
    server.routes.update(dict.fromkeys(("cut_by_close", "sign_in", "empty"), server.routes["until_close"]))
    second = script("download_images", *arguments(folder, *flags))
    assert (second.counts["downloaded"], second.counts["already_there"], second.messages) == (4, 1, "")


def test_size_and_md5_hold_for_the_original_alone(script, server, folder):
    data = photo("x")
    digest = b64encode(md5(data).digest()).decode()
    other = b64encode(md5(b"").digest()).decode()
    url = f"{server.base}/good/x"
    entries = [
        {"id": "same", "url": url, "size": len(data), "md5": digest},
        {"id": "text", "url": url, "size": str(len(data)), "md5": digest},
        {"id": "size", "url": url, "size": len(data) + 1, "md5": digest},
        {"id": "md5", "url": url, "size": len(data), "md5": other},
        {"id": "thumbnail", "url": f"{server.base}/404/x", "thumbnail_url": url, "size": 1, "md5": other},
        {
            "id": "unmarked",
            "url": f"{server.base}/cut_by_close/x",
            "size": len(data) - 2,
        },  # it has no end marker
    ]
    write_index(folder, entries)
    outcome = script("download_images", *arguments(folder, "--image_source", "original,thumbnail"))
    assert outcome.counts["downloaded"] == 4
    assert failures(folder) == {
        "size": ("changed", f"original: {len(data)} bytes, the index says {len(data) + 1}"),
        "md5": ("changed", "original: the MD5 differs from the index"),
    }


def test_a_dry_run_says_what_would_come_and_changes_nothing(script, server, folder, monkeypatch):
    entries = [
        {"id": f"p{n}", "subset": "train", "url": f"{server.base}/good/p{n}", "size": 1000 + n}
        for n in range(5)
    ]
    entries[4]["size"] = None
    write_index(folder, [*entries, {"id": "gone", "url": f"{server.base}/404/gone"}])
    dry = ("--image_source", "original", "--dry_run")
    monkeypatch.setenv("RSYNC_PROXY", "proxy:873")  # none of ours, in another form
    outcome = script("download_images", *arguments(folder, *dry))
    assert (outcome.code, outcome.messages) == (0, "")
    assert outcome.counts == {
        "images": 6,
        "already_there": 0,
        "to_download": 6,
        "refused": 0,
        "size_known": 4,
        "bytes": 4006,
    }
    assert not folder.exists()
    assert not server.asked
    mirror = script("download_images", *arguments(folder, "--dry_run")).counts
    assert (mirror["to_download"], mirror["size_known"], mirror["bytes"]) == (6, 0, 0)
    write_index(folder, [{**entries[0], "size": None}, {"id": "gone", "url": f"{server.base}/404/gone"}])
    script("download_images", *arguments(folder, "--image_source", "original"))
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for flag, to_download in (("--max_pause=9", 0), ("--retry_failed", 1)):
        counts = script("download_images", *arguments(folder, *dry, flag)).counts
        assert (counts["already_there"], counts["to_download"]) == (1, to_download)
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


# --- the end -------------------------------------------------------------------------------------


def test_nothing_at_all_is_an_error_that_names_the_cause(script, folder):
    url = f"http://127.0.0.1:{unused_port()}/a.jpg"
    write_index(folder, [{"id": f"p{n}", "url": url} for n in range(3)])
    outcome = script("download_images", *arguments(folder))
    assert outcome.code == 1
    assert outcome.messages == (
        "download_images.py: none of the 3 images was downloaded, 3 of them with connection, such as p0: original: "
        f"Connection refused ({url}); run the same command again to retry these; "
        f"see {folder}/download_failures.csv\n"
    )
    assert len(failures(folder)) == 3


def test_the_run_stops_when_the_first_200_all_fail_in_passing(script, folder):
    url = f"http://127.0.0.1:{unused_port()}/a.jpg"
    write_index(folder, [{"id": f"p{n}", "url": url} for n in range(5000)])
    outcome = script("download_images", *arguments(folder, "--retries", 1))
    assert outcome.code == 1
    assert re.fullmatch(
        r"download_images.py: the first 200 images all failed, 200 of them with connection, such as p[0-9]+: original: "
        rf"Connection refused \({url}\); run the same command again to retry these\n", outcome.err
    )  # fmt: skip


def test_the_run_goes_on_when_one_of_the_first_200_is_there(script, server, folder):
    url = f"http://127.0.0.1:{unused_port()}/a.jpg"
    write_index(folder, [*good(server, 1), *({"id": f"x{n}", "url": url} for n in range(300))])
    outcome = script("download_images", *arguments(folder, "--retries", 1))
    assert (outcome.code, outcome.counts["connection"]) == (0, 300)


AGAIN = "run the same command again to retry these; "
SIGN_IN = "sign in to the network if it asks for that, and "
UNREACHABLE = "if the mirror cannot be reached from here, use --mirror_url or --image_source original; see"
ENDS = {  # routes of the images that fail, flags, the end of step 4
    "the commonest, by the first id, as its server says it": (("escape", "410", "403"), (), "2 of them with gone, such as x0: original: 404 a?[31mb (URL/escape/0); --retry_failed requests these again; see"),
    "a transient one": (("html",), (), "1 of them with web_page, such as x0: original: HTML page, 18 bytes of text/html (URL/html/0); " + SIGN_IN + AGAIN + "see"),
    "no address": (("",), (), "1 of them with no_source, such as x0: no address in the index for any --image_source; --image_source may name more sources; see"),
    "a mirror behind a sign-in": (("html",), ("--mirror_url", "URL"), "1 of them with web_page, such as x0: mirror: HTML page, 18 bytes of text/html (URL/html/x0.jpg); " + SIGN_IN + AGAIN + UNREACHABLE),
    "a mirror that no one answers for": (("closed",), ("--mirror_url", "CLOSED"), "1 of them with connection, such as x0: mirror: Connection refused (CLOSED/closed/x0.jpg); " + AGAIN + UNREACHABLE),
}  # fmt: skip


@pytest.mark.parametrize(("routes", "flags", "end"), ENDS.values(), ids=ENDS)
def test_the_end_names_the_commonest_failure_and_what_tries_it_again(
    script, server, folder, routes, flags, end
):
    server.routes["escape"] = lambda e: e.answer(b"", "404 a\x1b[31mb")
    closed = f"http://127.0.0.1:{unused_port()}"

    def real(text: str) -> str:
        return text.replace("URL", server.base).replace("CLOSED", closed)

    bad = [
        {"id": f"x{n}", "subset": route if flags else None, "url": route and f"{server.base}/{route}/{n}"}
        for n, route in enumerate(routes)
    ]
    write_index(folder, [*bad, *good(server, 1)])
    outcome = script("download_images", *arguments(folder, "--retries", 0, *map(real, flags)))
    assert (outcome.code, len(outcome.messages.splitlines())) == (0, 1)
    assert outcome.messages.startswith(f"{len(routes)} of {len(routes) + 1} images failed, ")
    assert real(end) in outcome.messages
    again = script("download_images", *arguments(folder, "--retries", 0, *map(real, flags)))
    assert again.messages == outcome.messages  # of what is not requested again, too


def test_max_failures(script, server, folder):
    write_index(
        folder, [*good(server, 8), *({"id": f"x{n}", "url": f"{server.base}/404/{n}"} for n in range(2))]
    )
    for limit, code in (("1", 1), ("2", 0), ("19%", 1), ("20%", 0)):  # by the second run all are known
        outcome = script("download_images", *arguments(folder, "--max_failures", limit))
        assert outcome.code == code
        assert outcome.counts["failed"] == 2
        assert code == 0 or outcome.messages.startswith(
            f"download_images.py: 2 of 10 images failed, --max_failures is {limit}; 2 of them with gone, such as x0: "
        )
    assert server.asked.total() == 10


def test_help_is_quick_to_import():
    code = (
        "import sys, download_images; print(sorted({'requests', 'urllib3', 'PIL', 'ssl'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"
