"""Messages of wrong options: the option, what it takes, what it got; no parser's words."""

import pytest

from thalweg.commands.main import main

WRONG = {
    "train egc/digits --out r --images x": "--images takes a whole number, got 'x'",
    "train egc/digits --out r --images 1.5": "--images takes a whole number, got '1.5'",
    "train egc/digits --out r --threads a": "--threads takes a whole number, got 'a'",
    "train egc/digits --out r --size 1,2": "--size takes a whole number, got '1,2'",
    "train egc/digits --out r --images": "--images needs a value",
    "sample r --out a.png -n x": "--n takes a whole number, got 'x'",
    "sample r --out a.png --guide bot": "--guide takes both or initializer, got 'bot' (did you mean 'both'?)",
    "sample r --out a.png --eta x": "--eta takes a number, got 'x'",
    "evaluate r -n 0.5": "--n takes a whole number, got '0.5'",
    "evaluate r --sed 3": "unknown option --sed (did you mean --seed?)",
    "apply denoise r --input a --out b.png --std x": "--std takes a number, got 'x'",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_option_is_told_in_plain_words(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    told = capsys.readouterr().err
    assert WRONG[words] in told and len(told.strip().splitlines()) == 1
    assert not any(word in told for word in ("{None}", "INT", "FLOAT", "NoneType", "literal", "helptext", "Error parsing"))
    assert not list(tmp_path.iterdir())
