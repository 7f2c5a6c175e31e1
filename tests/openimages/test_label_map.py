"""The check of a label map against the class list, through step 7."""

import pytest

from tests.support.step7 import CAT, DOG, TREE, annotation, photo
from tests.support.step7 import step as step


def items(*pairs: tuple[str, int], more: str = "") -> str:
    return "".join(f"item {{\n  name: '{name}'\n  id: {number}\n{more}}}\n" for name, number in pairs)


RIGHT = items((DOG, 1), (CAT, 2))
LIST = "by the class list {folder}/classes.txt; make the label map and the records from the same list"
CASES = {
    "right": (RIGHT, None),
    "in another order of items": (items((CAT, 2), (DOG, 1)), None),
    "with fields of others": (items((DOG, 1), (CAT, 2), more="  display_name: 'x'\n  frequency: COMMON\n"), None),
    "commented": (f"# made by hand\n{RIGHT}", None),
    "exchanged": (items((CAT, 1), (DOG, 2)), f": id 1 is '{CAT}', but id 1 is '{DOG}' {LIST}"),
    "of a longer list": (
        items((DOG, 1), (CAT, 2), (TREE, 3)), f": id 3 is '{TREE}', but there is no further class {LIST}",
    ),
    "of a longer list that begins otherwise": (
        items((TREE, 1), (DOG, 2), (CAT, 3)), f": id 1 is '{TREE}', but id 1 is '{DOG}' {LIST}",
    ),
    "of a shorter list": (items((DOG, 1)), f": there is no further class, but id 2 is '{CAT}' {LIST}"),
    "one id twice": (items((DOG, 1), (CAT, 1)), f": id 1 is '{CAT}', but id 1 is '{DOG}' {LIST}"),
    "empty": ("", f": there is no further class, but id 1 is '{DOG}' {LIST}"),
    "from 0": (items((DOG, 0), (CAT, 1)), f": id 0 is '{DOG}', but id 1 is '{DOG}' {LIST}"),
    "cut short": (RIGHT[:-3], ":7: not a label map, items with id and name were expected"),
    "a class list": (f"{DOG}\n{CAT}\n", ":1: not a label map, items with id and name were expected"),
    "no text": (b"\xff\xfe\x00", ": UTF-16 text, UTF-8 was expected: save it as UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "problem"), CASES.values(), ids=CASES)
def test_records_and_label_map_cannot_part(step, tmp_path, content, problem):
    path = tmp_path / "label_map.pbtxt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    outcome = step(
        [{"id": "a1", "annotations": [annotation()]}], {"a1.jpg": photo()}, "--label_map_path", path
    )
    if problem is None:
        assert (outcome.code, outcome.messages) == (0, "")
    else:
        assert outcome.code == 1
        (line,) = outcome.err.splitlines()
        assert line == f"record_maker.py: {path}{problem.format(folder=tmp_path)}"
        assert not (tmp_path / "out").exists()


def test_the_label_map_of_step_6_is_right(script, step, tmp_path):
    """By MID and by name, where names are hard to quote and shared."""
    (tmp_path / "classes.txt").write_text(f"{DOG}\n{CAT}\n")
    names = tmp_path / "names.csv"
    for described, text in (
        (f'{DOG},"Pet ""Žofka"" \\n"\n{CAT},Cat\n', "mid"),
        (f"{DOG},Pet\n{CAT},Pet\n", "name"),
    ):
        names.write_text(described)
        made = script(
            "create_label_map", "--trainable_classes_path", tmp_path / "classes.txt", "--class_description_path", names,
            "--label_map_save_path", tmp_path / "label_map.pbtxt", "--name_field", text,
        )  # fmt: skip
        assert made.code == 0, made.err
        outcome = step(
            [{"id": "a1", "annotations": [annotation()]}], {"a1.jpg": photo()}, "--class_text", text,
            "--class_description_path", names, "--label_map_path", tmp_path / "label_map.pbtxt",
        )  # fmt: skip
        assert (outcome.code, outcome.messages) == (0, "")
