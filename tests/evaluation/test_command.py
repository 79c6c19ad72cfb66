"""`edge-seg eval` as users call it: JSON, table, dump, report, errors. With the shipped model."""

import json
import re

import cv2
import numpy as np
import pytest

from edge_seg import cli
from edge_seg.evaluation import charts, metrics, report, synthetic_set, table
from edge_seg.evaluation.metrics import Scores
from edge_seg.sources.base import SyntheticSettings

METHODS = ["raw", "ema", "mediapipe", "pphumanseg", "ours"]
FIGURES = ["iou", "bf1", "mad", "dtssd", "ghost", "cut"]
FRAMES = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two short sequences on disk, one wide and one nearly square."""
    root = tmp_path_factory.mktemp("sequences")
    for name, width, height in (("wide", 320, 180), ("tall", 179, 181)):
        settings = SyntheticSettings(width=width, height=height, motion="wave")
        synthetic_set.write(synthetic_set.SyntheticSequence(name, settings, FRAMES), root)
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_json_dump_and_report_agree(folder, tmp_path, capsys):
    dump, page = tmp_path / "dump", tmp_path / "report.html"
    status = cli.main(["eval", str(folder), "--json", "--dump", str(dump), "--report", str(page)])
    assert status == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["clips", "mean"]
    assert list(found["clips"]) == ["tall", "wide"]
    for figures in (*found["clips"].values(), found["mean"]):
        assert list(figures) == METHODS
        assert all(list(scores) == FIGURES for scores in figures.values())
    mean = (found["clips"]["tall"]["ours"]["iou"] + found["clips"]["wide"]["ours"]["iou"]) / 2
    assert found["mean"]["ours"]["iou"] == pytest.approx(mean)
    # The drawn person is one that the model sees, or the rest would say nothing.
    assert found["clips"]["wide"]["raw"]["iou"] > 0.8

    # What others compute from the dump is what we print.
    for clip, shape in (("wide", (144, 256)), ("tall", (256, 256))):
        truth = []
        for path in sorted((folder / clip / "mask").iterdir()):
            whole = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.float32) / 255
            truth.append(cv2.resize(whole, shape[::-1], interpolation=cv2.INTER_AREA))
        for method in METHODS:
            files = sorted((dump / clip / method).iterdir())
            assert [path.name for path in files] == [f"{i:05d}.png" for i in range(FRAMES)]
            masks = np.stack([cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in files])
            assert masks.shape == (FRAMES, *shape)
            assert masks.dtype == np.uint8
            again = metrics.scores(masks.astype(np.float32) / 255, np.stack(truth))
            expected = found["clips"][clip][method]
            assert again.iou == pytest.approx(expected["iou"], abs=1e-9)
            assert again.bf1 == pytest.approx(expected["bf1"], abs=1e-9)
            for name in ("mad", "dtssd", "ghost", "cut"):
                assert getattr(again, name) == pytest.approx(expected[name], rel=0.02, abs=0.02)

    html = page.read_text(encoding="utf-8")
    for word in ("wide", "tall", *METHODS, f"{found['mean']['ours']['iou']:.3f}"):
        assert word in html
    assert html.count("<svg") == 2 * 3
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)  # nothing from elsewhere
    assert "http" not in html
    assert "<script" not in html


def test_late_adds_the_late_mask_test(folder, capsys):
    assert cli.main(["eval", str(folder / "wide"), "--late", "--method", "raw", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["late"]) == ["1,1", "2,3", "4,5"]
    for delay in found["late"].values():
        assert list(delay) == ["hold", "ours"]
        assert list(delay["ours"]) == FIGURES
    assert found["late"]["4,5"]["hold"]["iou"] < found["late"]["1,1"]["hold"]["iou"] < 1
    assert list(found["clips"]["wide"]) == ["raw"]


def test_a_figure_without_meaning_is_null_in_json(tmp_path, capsys):
    settings = SyntheticSettings(width=320, height=180, motion="still")
    synthetic_set.write(synthetic_set.SyntheticSequence("still", settings, 2), tmp_path / "set")
    # still moves nothing: nobody leaves or comes
    assert cli.main(["eval", str(tmp_path / "set"), "--json", "--method", "raw"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["mean"]["raw"]["ghost"] is None
    assert found["mean"]["raw"]["iou"] is not None


def test_the_second_run_takes_the_models_masks_from_the_cache(folder, capsys, monkeypatch):
    arguments = ["eval", str(folder), "--clip", "w*", "--method", "ema", "--json"]
    assert cli.main(arguments) == 0
    first = capsys.readouterr().out

    def never(*_: object) -> None:
        raise AssertionError("the model was run again")

    monkeypatch.setattr("edge_seg.segmenter.Segmenter.infer", never)
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out == first
    with pytest.raises(AssertionError, match="run again"):
        cli.main([*arguments, "--no-cache"])


def test_the_model_can_be_chosen(folder, tmp_path):
    dump = tmp_path / "dump"
    model = ["--model", "selfie_general_int8", "--method", "raw", "--dump", str(dump)]
    assert cli.main(["eval", str(folder), "--clip", "wide", *model]) == 0
    assert cv2.imread(str(dump / "wide" / "raw" / "00000.png"), cv2.IMREAD_UNCHANGED).shape == (256, 256)


def test_settings_come_from_the_configuration(folder, tmp_path, capsys):
    def ours(text: str) -> float:
        config = tmp_path / "config.yaml"
        config.write_text("source: {type: synthetic}\n" + text)
        arguments = ["--config", str(config), "--method", "ours", "--json"]
        assert cli.main(["eval", str(folder / "wide"), *arguments]) == 0
        return float(json.loads(capsys.readouterr().out)["mean"]["ours"]["mad"])

    assert ours("model: auto\n") != ours("flow: {block_px: 8}\n")


def test_the_table_shows_means_against_raw(folder, capsys):
    assert cli.main(["eval", str(folder), "--method", "ours", "--method", "raw"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^tall +raw +0\.\d{3}", out, re.M)
    assert re.search(r"^mean +raw +0\.\d{3}", out, re.M)
    assert re.search(r"^ +ours +[+-]0\.\d{3} +[+-]0\.\d{3} +\d\.\d\d", out, re.M)


def test_drawn_sequences_need_no_folder(capsys):
    assert cli.main(["eval", "--clip", "wave", "--method", "raw", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["clips"]) == ["wave"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{tmp}/nowhere"], r"nowhere: no such folder: expected NAME/rgb\.mp4 and NAME/alpha\.mkv"),
        (["{tmp}"], "no sequences in it"),
        (["{folder}", "--clip", "nobody"], "no sequence is called nobody, only tall, wide"),
        (["--clip", "nobody"], "no sequence is called nobody, only still_noisy"),
        (["{folder}", "--report", "{tmp}/nowhere/r.html"], "--report .*its folder does not exist"),
        (["{folder}", "--report", "{tmp}"], "--report .*is a folder"),
        (["{folder}", "--dump", "{folder}/wide/rgb/00000.png"], "cannot be made"),
        (["{folder}", "--config", "{tmp}/none.yaml"], r"none\.yaml: cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(folder, tmp_path, capsys, arguments, message):
    filled = [argument.format(tmp=tmp_path, folder=folder) for argument in arguments]
    assert cli.main(["eval", *filled, "--method", "raw"]) == 78
    err = capsys.readouterr().err
    assert re.search(message, err)
    assert len(err.strip().splitlines()) == 1


def test_left_out_frames_are_mentioned(folder, tmp_path, capsys):
    settings = SyntheticSettings(width=320, height=180)
    synthetic_set.write(synthetic_set.SyntheticSequence("sway", settings, 3), tmp_path / "set")
    (tmp_path / "set" / "sway" / "mask" / "00001.png").unlink()
    assert cli.main(["eval", str(tmp_path / "set"), "--method", "raw", "--json"]) == 0
    captured = capsys.readouterr()
    assert "sway: 1 pictures or masks without a partner are left out" in captured.err
    json.loads(captured.out)


def test_relative_figures():
    raw, ours = Scores(0.8, 0.7, 20, 8, 0.2, 0.4), Scores(0.83, 0.69, 15, 6, float("nan"), 0.2)
    found = table.relative_to_raw({"raw": raw, "ours": ours})
    assert found == {"ours": ["+0.030", "-0.010", "0.75", "0.75", "n/a", "0.50"]}
    assert table.relative_to_raw({"ours": ours}) == {}


def test_charts_break_lines_where_a_figure_has_no_meaning():
    svg = charts.chart("t", {"raw": np.array([0.1, np.nan, 0.3, 0.4])})
    (path,) = re.findall(r'<path class="raw" d="([^"]*)"', svg)
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert "no meaning" in charts.chart("t", {"raw": np.array([np.nan, np.nan])})


def test_the_sheet_shows_the_frames_where_methods_differ():
    calm = np.zeros((60, 4, 4), np.float32)
    other = calm.copy()
    other[20] = 0.5
    other[21] = 0.9  # the most, but its neighbour is then too near
    other[50] = 0.3
    assert report.most_different({"a": calm, "b": other}, count=2, apart=8) == [21, 50]
