"""docs/gallery.md and the arena's table in docs/how_to_choose.md: what is committed is what the results say."""

from studies import gallery, tables
from thalweg.commands.list import lines


def test_each_entry_has_its_preset_picture_and_results():
    listed = "\n".join(lines())
    for one in gallery.ENTRIES:
        method, _, key = one.preset.partition("/")
        toys = f"  {method}/toy " in listed
        assert f"  {one.preset} " in listed or (toys and key in ("spiral", "checkerboard")), one.preset
    assert not gallery.without() and len({one.preset for one in gallery.ENTRIES}) == len(gallery.ENTRIES)


def test_the_committed_page_is_the_one_of_the_results():
    page = gallery.page()
    assert (tables.DOCS / "gallery.md").read_text() == page
    assert "None" not in page and page.count("![") == len(gallery.ENTRIES)
    assert "`python -m studies.arena dual " in page.partition("### `dual/fashion-mnist-conditional`")[0]  # a row's own command


def test_the_page_on_how_to_choose_has_the_arena():
    text = (tables.DOCS / "how_to_choose.md").read_text()
    assert tables.choosing(text) == text and "| dual | 2.5 | 0.3 |" in text
    assert tables.choosing(text.replace("| dual | 2.5 |", "| dual | 9.9 |")) == text
