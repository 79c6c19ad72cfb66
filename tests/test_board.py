"""What boards say, from sysfs trees as folders."""

from pathlib import Path

import pytest

from edge_seg import board


@pytest.fixture
def sysfs(tmp_path: Path) -> Path:
    return tmp_path


def write(root: Path, **files: str) -> None:
    for path, text in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def raspberry_pi(root: Path, throttled: str = "0") -> None:
    write(
        root,
        **{
            "firmware/devicetree/base/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "class/thermal/thermal_zone0/temp": "61835\n",
            "class/hwmon/hwmon0/name": "cpu_thermal\n",
            "class/hwmon/hwmon0/temp1_input": "61835\n",
            "class/hwmon/hwmon1/name": "rpi_volt\n",
            "class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
            "devices/platform/soc/soc:firmware/get_throttled": f"{throttled}\n",
        },
    )


def test_a_raspberry_pi_tells_temperature_and_no_throttling(sysfs: Path) -> None:
    raspberry_pi(sysfs)
    found = board.read(sysfs)
    assert found.model == "Raspberry Pi 4 Model B Rev 1.4"
    assert found.temperatures_c == {"cpu-thermal": 61.835}
    assert found.hottest_c == 61.835
    assert set(found.throttled) == {
        "under_voltage",
        "frequency_capped",
        "throttled",
        "soft_temperature_limit",
    }
    assert not any(found.throttled.values())
    assert not any(found.throttled_since_boot.values())


@pytest.mark.parametrize(
    ("text", "now", "since_boot"),
    [
        ("50005", {"under_voltage", "throttled"}, {"under_voltage", "throttled"}),
        ("0x80000", set(), {"soft_temperature_limit"}),
        ("f000f", {"under_voltage", "frequency_capped", "throttled", "soft_temperature_limit"},
         {"under_voltage", "frequency_capped", "throttled", "soft_temperature_limit"}),
    ],
)  # fmt: skip
def test_the_firmware_s_bits_are_told_by_name(
    sysfs: Path, text: str, now: set[str], since_boot: set[str]
) -> None:
    raspberry_pi(sysfs, throttled=text)
    found = board.read(sysfs)
    assert {reason for reason, is_so in found.throttled.items() if is_so} == now
    assert {reason for reason, is_so in found.throttled_since_boot.items() if is_so} == since_boot


def test_without_the_firmware_s_file_the_voltage_alarm_counts(sysfs: Path) -> None:
    write(sysfs, **{"class/hwmon/hwmon2/name": "rpi_volt\n", "class/hwmon/hwmon2/in0_lcrit_alarm": "1\n"})
    assert board.read(sysfs).throttled == {"under_voltage": True}


def test_a_jetson_tells_its_zones_and_counts_its_throttling(sysfs: Path) -> None:
    zones = {"cpu-thermal": "48406", "gpu-thermal": "-256000", "tj-thermal": "49500"}
    for number, (kind, millidegrees) in enumerate(zones.items()):
        write(
            sysfs,
            **{
                f"class/thermal/thermal_zone{number}/type": f"{kind}\n",
                f"class/thermal/thermal_zone{number}/temp": f"{millidegrees}\n",
            },
        )
    write(
        sysfs,
        **{
            "class/hwmon/hwmon3/name": "soctherm_oc\n",
            "class/hwmon/hwmon3/oc1_event_cnt": "0\n",
            "class/hwmon/hwmon3/oc3_event_cnt": "37\n",
        },
    )
    found = board.read(sysfs)
    # The GPU sleeps: -256 degrees is no reading.
    assert found.temperatures_c == {"cpu-thermal": 48.406, "tj-thermal": 49.5}
    assert found.throttle_events == {"under_voltage": 0, "over_current": 37}


def test_two_sensors_of_one_name_are_both_told(sysfs: Path) -> None:
    for number in (0, 1):
        write(
            sysfs,
            **{
                f"class/hwmon/hwmon{number}/name": "nvme\n",
                f"class/hwmon/hwmon{number}/temp1_input": f"{40 + number}000\n",
                f"class/hwmon/hwmon{number}/temp1_label": "Composite\n",
            },
        )
    assert board.read(sysfs).temperatures_c == {"nvme Composite": 40.0, "nvme Composite 2": 41.0}


def test_a_machine_that_says_nothing_is_no_error(sysfs: Path) -> None:
    write(
        sysfs, **{"class/thermal/thermal_zone0/type": "acpitz\n", "class/thermal/thermal_zone0/temp": "?\n"}
    )
    found = board.read(sysfs)
    assert found.model == ""
    assert found.temperatures_c == {}
    assert found.throttled == {}
    assert found.hottest_c is None
