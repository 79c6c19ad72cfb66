from dataclasses import MISSING, fields
from pathlib import Path
from typing import get_args

import pytest
import yaml

from edge_seg import config_file
from edge_seg.errors import EXIT_CONFIG, ConfigError
from edge_seg.sinks import OutputSettings
from edge_seg.sources import SourceSettings

MINIMAL = "source: {type: synthetic}\n"


def problems(tmp_path: Path, text: str) -> list[str]:
    """What is wrong with `text`, without the file's name."""
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config_file.load(file)
    assert caught.value.exit_status == EXIT_CONFIG
    assert all(line.startswith(f"{file}:") for line in caught.value.problems)
    return [line.removeprefix(f"{file}:") for line in caught.value.problems]


def load(tmp_path: Path, text: str) -> config_file.Config:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    return config_file.load(file)


def test_defaults_fill_what_is_not_said(tmp_path: Path) -> None:
    config = load(tmp_path, MINIMAL)
    assert config.source.type == "synthetic"
    assert config.mask_sync == "budget"
    assert config.latency.budget_ms == 40
    assert config.privacy.mode == "closed"
    assert [output.type for output in config.outputs] == ["rtsp"]


def test_what_check_prints_is_a_configuration_that_means_the_same(tmp_path: Path) -> None:
    config = load(
        tmp_path, "source: {type: synthetic, motion: walk}\nmodel: auto\nlatency: {budget_ms: 25}\n"
    )
    assert load(tmp_path, config_file.dump(config)) == config


def test_all_errors_come_at_once_each_with_its_line_and_key(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "source:\n"
        "  type: synthetic\n"
        "  motion: swya\n"
        "latency:\n"
        "  budget_ms: soon\n"
        "backgrund:\n"
        "  type: blur\n"
        "outputs:\n"
        "  - type: rtsp\n"
        "    port: 99999\n"
        "    adress: 127.0.0.1\n",
    )
    assert any(
        line.startswith('3: source.motion: got "swya" (did you mean sway?), allowed: ') for line in found
    )
    assert any(line.startswith('5: latency.budget_ms: got "soon", allowed: a valid number') for line in found)
    assert any(
        line.startswith("6: backgrund: unknown key (did you mean background?), allowed: ") for line in found
    )
    assert "10: outputs[0].port: got 99999, allowed: less than or equal to 65535" in found
    assert any(
        line.startswith("11: outputs[0].adress: unknown key (did you mean address?)") for line in found
    )
    assert len(found) == 5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("source: {type: fiel}\n", '1: source.type: got "fiel" (did you mean file?), allowed: '),
        ("source: {path: x}\n", "1: source.type: is missing, allowed: argus, auto, csi, file, "),
        ("source: {type: rtsp}\n", "1: source.url: is missing"),
        (
            "source: {type: rtsp, url: http://a/b}\n",
            '1: source.url: got "http://a/b", allowed: a URL such as rtsp:',
        ),
        ("source: {type: gst}\n", "1: source.launch: is missing"),
        ("source: webcam\n", '1: source: expected keys below it, got "webcam"'),
        ("source: {type: synthetic}\nlatency: 40\n", "2: latency: expected keys below it, got 40"),
        ("source: {type: synthetic}\nlatency:\n", "2: latency: expected keys below it, got nothing"),
        ("source: {type: synthetic}\noutputs: []\n", "2: outputs: got [], allowed: "),
        ("source: {type: synthetic, fps: yes}\n", "1: source.fps: got true, allowed: a valid number"),
        ("source: {type: synthetic, width: 640.5}\n", "1: source.width: got 640.5, allowed: a valid integer"),
        (
            "source: {type: synthetic, width: 0}\n",
            "1: source.width: got 0, allowed: greater than or equal to 64",
        ),
        ("a: b: c\n", "1: not valid YAML: "),
        ("source:\n  type: [synthetic\nlatency: {}\n", "3: not valid YAML: "),
        ("- source\n", '1: expected keys such as `source:`, got ["source"]'),
        ("just words\n", "1: expected keys such as `source:`"),
        (
            "source: {type: synthetic}\nsource: {type: synthetic}\n",
            "2: source: stands twice, first in line 1",
        ),
        ("source: !!python/object:os.system {}\n", "1: not valid YAML: "),
        (
            "source: {type: synthetic}\nlatency: {budget_ms: .nan}\n",
            "2: latency.budget_ms: got NaN, allowed: a finite",
        ),
        (
            "source: {type: v4l2, device: /dev/video10}\noutputs: [{type: v4l2}]\n",
            "2: outputs[0].device: /dev/video10 is the source, too",
        ),
        (
            "source: {type: synthetic}\noutputs: [{type: hdmi, mode: 1080p}]\n",
            '2: outputs[0].mode: got "1080p", allowed: auto, or WIDTHxHEIGHT',
        ),
    ],
)
def test_each_kind_of_error_says_what_is_right(tmp_path: Path, text: str, expected: str) -> None:
    found = problems(tmp_path, text)
    assert len(found) == 1, found
    assert found[0].startswith(expected)


def test_an_unknown_key_is_compared_with_the_keys_of_its_own_kind_only(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "source: {type: synthetic, devcie: /dev/video0}\n")
    assert "device" not in line.split("allowed:")[1]
    assert "motion" in line


def test_named_files_must_be_there_and_have_something_in_them(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "person.mp4").write_bytes(b"x")
    found = problems(
        tmp_path,
        "source: {type: file, path: persn.mp4}\n"
        "background: {type: image, path: empty.jpg}\n"
        "model: nowhere/model.tflite\n",
    )
    assert found[0] == f"1: source.path: no such file: {tmp_path}/persn.mp4 (did you mean person.mp4?)"
    assert found[1] == f"2: background.path: is empty: {tmp_path}/empty.jpg"
    assert found[2].startswith(f"3: model.file: no such file: {tmp_path}/nowhere/model.tflite")


def test_a_text_that_calls_itself_an_image_and_a_model_that_is_damaged_are_found_before_the_start(
    tmp_path: Path,
) -> None:
    (tmp_path / "office.jpg").write_text("no picture")
    whole = Path("models/selfie_landscape_int8.tflite").read_bytes()
    (tmp_path / "half.tflite").write_bytes(whole[: len(whole) // 2])
    card = Path("models/selfie_landscape_int8.yaml").read_text()
    (tmp_path / "half.yaml").write_text(card.replace("selfie_landscape_int8.tflite", "half.tflite"))
    found = problems(tmp_path, MINIMAL + "background: {type: image, path: office.jpg}\nmodel: half.tflite\n")
    assert found[0] == (
        f"2: background.path: is no image (PNG, JPEG, WebP, BMP, TIFF are): {tmp_path}/office.jpg"
    )
    assert found[1].startswith(f"3: model.file: {tmp_path}/half.tflite: sha256 is ")
    (line,) = problems(tmp_path, MINIMAL + "background: {type: image}\n")
    assert line == "2: background.path: is missing: a background of type image needs a file"
    (line,) = problems(tmp_path, MINIMAL + "model: selfie_lanscape_int8\n")
    assert "did you mean selfie_landscape_int8?" in line


def test_relative_paths_are_meant_from_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    config = load(tmp_path, "source: {type: file, path: clip.mp4}\n")
    assert config.source.type == "file"
    assert config.source.path == str(tmp_path / "clip.mp4")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read: No such file"):
        config_file.load(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        config_file.load(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        config_file.load(binary)


def test_viewers_passwords_and_certificates_are_looked_for_and_not_shown(tmp_path: Path) -> None:
    text = MINIMAL + (
        "outputs:\n"
        "  - type: rtsp\n"
        "    users:\n"
        "      - {name: anna, password_file: anna.txt}\n"
        "      - {name: anna, password_env: X, password_file: anna.txt}\n"
        "      - {name: bob}\n"
        "    tls: {certificate: cert.pem, key: key.pem}\n"
    )
    found = problems(tmp_path, text)
    assert found == [
        f"5: outputs[0].users[0].password_file: no such file: {tmp_path}/anna.txt",
        "6: outputs[0].users[1].name: anna stands twice",
        f"6: outputs[0].users[1].password_file: no such file: {tmp_path}/anna.txt",
        "6: outputs[0].users[1].password_env: password_file says the password already: one of the two",
        "7: outputs[0].users[2]: needs a password_file or a password_env",
        f"8: outputs[0].tls.certificate: no such file: {tmp_path}/cert.pem",
        f"8: outputs[0].tls.key: no such file: {tmp_path}/key.pem",
    ]
    (tmp_path / "anna.txt").write_text("s3cret\n")
    config = load(
        tmp_path,
        MINIMAL + "outputs:\n  - type: rtsp\n    users: [{name: anna, password_file: anna.txt}]\n"
        "    tls: {certificate: cert.pem, key: key.pem, self_signed: true}\n",
    )
    assert "s3cret" not in config_file.dump(config)
    output = config.outputs[0]
    assert output.type == "rtsp"
    assert output.users[0].password_file == str(tmp_path / "anna.txt")
    assert output.tls is not None
    assert output.tls.key == str(tmp_path / "key.pem")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("path: live", '2: outputs[0].path: got "live", allowed: a path such as /live'),
        ("transports: []", "2: outputs[0].transports: got [], allowed: "),
        (
            "multicast: {address: 10.0.0.1}",
            '2: outputs[0].multicast.address: got "10.0.0.1", allowed: an IPv4 multicast',
        ),
        ("users: [{name: anna, rol: view}]", "2: outputs[0].users[0].rol: unknown key (did you mean role?)"),
    ],
)
def test_keys_of_the_rtsp_output_are_checked(tmp_path: Path, keys: str, expected: str) -> None:
    (line,) = problems(tmp_path, MINIMAL + f"outputs: [{{type: rtsp, {keys}}}]\n")
    assert line.startswith(expected)


def test_an_encoder_of_another_codec_is_refused(tmp_path: Path) -> None:
    (line,) = problems(
        tmp_path, MINIMAL + "outputs:\n  - type: rtsp\n    codec: h265\n    encoder: x264enc\n"
    )
    assert line == "5: outputs[0].encoder: x264enc encodes h264, not h265 as `codec` says"


@pytest.mark.parametrize("file", sorted(Path("config").glob("*.yaml")), ids=lambda file: file.name)
def test_the_configurations_that_come_with_the_project_are_valid(file: Path) -> None:
    config_file.load(file)


def test_the_reference_configuration_names_every_key_with_its_default(tmp_path: Path) -> None:
    reference = yaml.safe_load(Path("config/edge-seg.yaml").read_text())
    effective = yaml.safe_load(
        config_file.dump(load(tmp_path, yaml.safe_dump({"source": reference["source"]})))
    )
    assert set(reference) == set(effective)
    for section in set(reference) - {"source", "outputs"}:
        assert reference[section] == effective[section], section


@pytest.mark.parametrize("text", ["", "latency: {budget_ms: 40}\n"])
def test_without_a_source_it_is_the_first_camera_that_works(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text).source.type == "auto"


def test_a_launch_text_has_a_short_form(tmp_path: Path) -> None:
    config = load(tmp_path, "source: {gst: videotestsrc is-live=true, stale_ms: 500}\n")
    assert config.source.type == "gst"
    assert config.source.launch == "videotestsrc is-live=true"
    assert config.source.stale_ms == 500


def test_a_password_is_neither_accepted_in_a_url_nor_printed(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "source: {type: rtsp, url: 'rtsp://me:s3cret@camera/live'}\n")
    assert "user and password" in line
    assert "s3cret" not in line


def test_a_password_file_is_looked_for_and_not_shown(tmp_path: Path) -> None:
    text = "source: {type: rtsp, url: rtsp://camera/live, user: me, password_file: secret}\n"
    (line,) = problems(tmp_path, text)
    assert line.startswith(f"1: source.password_file: no such file: {tmp_path}/secret")
    (tmp_path / "secret").write_text("s3cret\n")
    config = load(tmp_path, text)
    assert config.source.type == "rtsp"
    assert config.source.password_file == str(tmp_path / "secret")
    assert "s3cret" not in config_file.dump(config)


def test_a_password_needs_a_user_and_stands_in_one_place(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    found = problems(
        tmp_path,
        "source: {type: rtsp, url: rtsp://c/l, password_file: secret, password_env: CAMERA_PASSWORD}\n",
    )
    assert [line.split(":")[1].strip() for line in found] == ["source.password_env", "source.user"]


def test_the_reference_configuration_names_every_key_of_every_source_with_its_default() -> None:
    text = Path("config/edge-seg.yaml").read_text().split("# The mask model")[0]
    blocks = text.replace("\n# source:", "\nsource:").replace("\n#   ", "\n  ").split("\nsource:")[1:]
    shown = [yaml.safe_load(f"source:{block}")["source"] for block in blocks]
    types = get_args(SourceSettings)
    assert len(shown) == len(types)
    for settings in types:
        defaults = {field.name: field.default for field in fields(settings)}
        example = next(block for block in shown if block["type"] == defaults["type"])
        for name, default in defaults.items():
            if default is MISSING:
                assert name in example
            else:
                assert example[name] == default, f"{defaults['type']}: {name}"
        assert set(example) == set(defaults)


def test_the_reference_configuration_names_every_key_of_every_output_with_its_default() -> None:
    text = Path("config/edge-seg.yaml").read_text().split("\noutputs:\n")[1].split("\n\n")[0]
    lines = text.replace("\n# - type", "\n  - type").replace("\n#   ", "\n    ")
    shown = yaml.safe_load(f"outputs:\n{lines}")["outputs"]
    types = get_args(OutputSettings)
    assert len(shown) == len(types)
    for settings in types:
        defaults = {field.name: field.default for field in fields(settings)}
        example = next(block for block in shown if block["type"] == defaults["type"])
        assert set(example) == set(defaults)
        for name, default in defaults.items():
            value = tuple(example[name]) if isinstance(default, tuple) else example[name]
            assert default is MISSING or value == default, f"{defaults['type']}: {name}"


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("path: a.avi", 'outputs[0].path: got "a.avi", allowed: a name that ends in .mp4 or .mkv'),
        ("path: '%Y/a.mp4'", "the time in the name of the file only"),
        ("path: 'a%c.mp4'", "not %c"),
        ("keep_mb: 5, split_s: 0", "outputs[0].keep_mb: the file that is being written is never removed"),
        ("keep_mb: 5, split_mb: 4", "outputs[0].keep_mb: is less than two files of split_mb: 4"),
    ],
)
def test_a_recording_that_cannot_be_kept_is_refused(tmp_path: Path, keys: str, says: str) -> None:
    (line,) = problems(tmp_path, f"{MINIMAL}outputs: [{{type: file, {keys}}}]\n")
    assert says in line


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("url: http://server/", "allowed: a URL such as rtsp://server:8554/camera"),
        ("url: rtsp://me:s3cret@server/", "a URL without user and password"),
        ("url: 'srt://server:1?passphrase=s3cret'", "a URL without user and password"),
        ("url: srt://server", "an SRT URL with a port"),
        ("url: rtsp://server/, user: me", "outputs[0].password_file: is missing"),
        ("url: rtsp://server/, password_env: P", "outputs[0].user: is missing"),
        ("url: rtsp://server/, user: me, password_file: none", "outputs[0].password_file: no such file"),
        ("url: 'srt://server:1', user: me, password_env: P", "outputs[0].user: SRT knows no users"),
        ("url: rtmp://server/live, codec: h265", "outputs[0].codec: RTMP carries h264 only"),
    ],
)
def test_what_cannot_be_published_is_refused(tmp_path: Path, keys: str, says: str) -> None:
    (line,) = problems(tmp_path, f"{MINIMAL}outputs: [{{type: push, {keys}}}]\n")
    assert says in line
    assert "s3cret" not in line


def test_a_recording_lies_beside_its_configuration(tmp_path: Path) -> None:
    (output,) = load(tmp_path, MINIMAL + "outputs: [{type: file, path: 'rec/%Y.mp4'}]\n").outputs
    assert output.type == "file"
    assert output.path == str(tmp_path / "rec" / "%Y.mp4")


def test_a_page_beyond_this_machine_needs_a_token_and_the_token_is_not_shown(tmp_path: Path) -> None:
    def web(text: str) -> str:
        return f"{MINIMAL}web: {{address: 0.0.0.0, port: 0{text}}}\n"

    (line,) = problems(tmp_path, web(""))
    assert line.startswith("2: web.address: 0.0.0.0 can be reached from other machines: set token_file")
    (tmp_path / "token").write_text("s3cret\n")
    (line,) = problems(tmp_path, web(", token_file: token"))
    assert line.startswith("2: web.token_file: the token has 6 characters, at least 16 are needed")
    (tmp_path / "token").write_text("s3cret-s3cret-s3cret\n")
    config = load(tmp_path, web(", token_file: token"))
    assert config.web.token_file == tmp_path / "token"
    assert "s3cret" not in config_file.dump(config)
    (line,) = problems(tmp_path, web(", token_file: token, token_env: TOKEN"))
    assert line.startswith("2: web.token_env: token_file says the token already")


def test_what_the_page_offers_must_be_there(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, MINIMAL + "web:\n  backgrounds:\n    - beach.jpg\n")
    assert line == f"4: web.backgrounds[0]: no such file: {tmp_path}/beach.jpg"


@pytest.mark.parametrize("written", ["$CREDENTIALS_DIRECTORY/camera", "${CREDENTIALS_DIRECTORY}/camera"])
def test_a_credential_of_systemds_is_found_or_said_to_need_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    text = f"source: {{type: rtsp, url: 'rtsp://camera/', user: viewer, password_file: '{written}'}}\n"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (line,) = problems(tmp_path, text)
    assert "source.password_file" in line
    assert "CREDENTIALS_DIRECTORY" in line
    assert "is not set" in line
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "camera").write_text("secret")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "given"))
    source = load(tmp_path, text).source
    assert source.type == "rtsp"
    assert source.password_file == str(tmp_path / "given" / "camera")
