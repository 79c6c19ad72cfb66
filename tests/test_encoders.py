import pytest

from edge_seg import encoders
from edge_seg.encoders import Encoder, EncoderSettings, choose, works
from edge_seg.errors import SinkError


def test_hardware_ranks_before_software_and_each_names_its_element_encoder() -> None:
    kinds = [encoder.hardware for encoder in encoders.RANKED]
    assert kinds == sorted(kinds, reverse=True)
    for encoder in encoders.RANKED:
        launch = encoder.launch(EncoderSettings(bitrate_kbps=2000, gop_frames=60, threads=2))
        assert f"{encoder.element} name=encoder" in launch
        assert "constrained-baseline" in launch


def test_a_software_encoder_passes_its_trial_here() -> None:
    assert choose().element in {encoder.element for encoder in encoders.RANKED}
    x264 = next(encoder for encoder in encoders.RANKED if encoder.element == "x264enc")
    assert works(x264) is None


def test_what_is_not_there_and_what_does_not_work_is_passed_over() -> None:
    absent = Encoder("no264enc", True, "nowhere", lambda _: "no264enc")
    broken = Encoder("identity", True, "coreelements", lambda _: "identity error-after=1")
    good = next(encoder for encoder in encoders.RANKED if encoder.element == "x264enc")
    assert choose((absent, broken, good)) is good
    with pytest.raises(SinkError, match=r"no264enc: no element no264enc .*identity: Failed after"):
        choose((absent, broken))


def test_an_encoder_that_is_asked_for_by_name_is_not_replaced() -> None:
    with pytest.raises(SinkError, match="v4l2h264enc: no element"):
        choose(wanted="v4l2h264enc")
