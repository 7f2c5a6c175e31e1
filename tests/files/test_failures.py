"""The list of failures: whole at the end, nothing lost by a kill in the middle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.cli import InputError
from common.files.failures import Failure, FailureList, read_failures

ONE = Failure("a1", "gone", "404", "http://host/a1.jpg")
TWO = Failure("b2", "timeout", 'said "no", and left', "http://host/b2.jpg?x=1,2")


def test_the_list_has_one_row_an_image_in_the_order_asked_for(tmp_path):
    with FailureList(tmp_path / "f.csv") as failures:
        failures.note(ONE)
        failures.note(TWO)
        failures.note(Failure("a1", "timeout"))
        failures.finish(["b2", "a1"])
    assert (tmp_path / "f.csv").read_text() == (
        'id,reason,detail,url\nb2,timeout,"said ""no"", and left","http://host/b2.jpg?x=1,2"\na1,timeout,,\n'
    )
    assert [path.name for path in tmp_path.iterdir()] == ["f.csv"]


def test_it_shrinks_when_a_photo_has_come(tmp_path):
    with FailureList(tmp_path / "f.csv") as failures:
        failures.note(ONE)
        failures.note(TWO)
        failures.finish(["a1", "b2"])
    with FailureList(tmp_path / "f.csv") as failures:
        assert failures.by_id == {"a1": ONE, "b2": TWO}
        failures.finish(["b2"])
    assert list(read_failures(tmp_path / "f.csv")) == [TWO]


def test_a_run_that_was_killed_leaves_what_it_knew(tmp_path):
    with FailureList(tmp_path / "f.csv") as failures:
        failures.note(ONE)
        failures.finish(["a1"])
    with FailureList(tmp_path / "f.csv") as failures:
        failures.note(TWO)  # and no finish
    assert FailureList(tmp_path / "f.csv").by_id == {"a1": ONE, "b2": TWO}


@given(cut=st.integers(min_value=0, max_value=200))
def test_a_journal_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("cut") / "f.csv"
    with FailureList(path) as failures:
        failures.note(ONE)
        failures.note(TWO)
    journal = path.with_name(".f.csv.journal")
    data = journal.read_bytes()
    journal.write_bytes(data[:cut])
    whole = data[:cut].count(b"\n")
    assert list(FailureList(path).by_id.values()) == [ONE, TWO][:whole]
    assert journal.read_bytes() == data[: data.rfind(b"\n", 0, cut) + 1]


@given(st.text(), st.text())
def test_strangers_text_stays_on_one_line(tmp_path_factory, detail, url):
    path = tmp_path_factory.mktemp("text") / "f.csv"
    with FailureList(path) as failures:
        failures.note(Failure("a1", "gone", detail, url))
        failures.note(TWO)
        assert len(FailureList(path).by_id) == 2
        failures.finish(["a1", "b2"])
    assert [failure.id for failure in read_failures(path)] == ["a1", "b2"]
    assert len(path.read_bytes().split(b"\n")) == 4


def test_a_file_that_is_no_list_of_failures_is_an_error(tmp_path):
    (tmp_path / "f.csv").write_text("id,reason\na,b\n")
    with pytest.raises(InputError, match=r"f.csv:1: the header id,reason,detail,url was expected"):
        FailureList(tmp_path / "f.csv")
