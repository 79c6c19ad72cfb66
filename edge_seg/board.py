"""What the board says about itself: temperatures, and whether it is throttled. Read from sysfs, when asked.

| board | where |
|---|---|
| all | `class/thermal/thermal_zone*`, and sensors of `class/hwmon` that are no thermal zone's |
| Raspberry Pi | the firmware's `get_throttled` (what `vcgencmd get_throttled` prints), and hwmon `rpi_volt` |
| Jetson | hwmon `soctherm_oc`: how often the clocks were cut because of voltage or current |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys")

_THROTTLED_BITS = {"under_voltage": 0, "frequency_capped": 1, "throttled": 2, "soft_temperature_limit": 3}
"""Of get_throttled: now; 16 bits higher, since the boot."""
_SINCE_BOOT = 16
_GET_THROTTLED = (
    "devices/platform/soc*/soc*firmware/get_throttled",
    "devices/platform/soc*firmware/get_throttled",
)
_OVER_CURRENT = {1: "under_voltage", 2: "average_over_current", 3: "over_current"}
"""What the counters of a Jetson Orin's soctherm_oc count."""
_PLAUSIBLE_C = (-55.0, 200.0)
"""Sensors that are switched off say something else: -256 °C on a Jetson."""


@dataclass(frozen=True, slots=True)
class Board:
    """One reading. What the board does not have is empty."""

    model: str
    """Such as "Raspberry Pi 5 Model B Rev 1.0"; empty where the firmware does not say."""
    temperatures_c: dict[str, float]
    """Sensor -> degrees Celsius."""
    throttled: dict[str, bool]
    """Reason -> whether the clocks are cut for it now."""
    throttled_since_boot: dict[str, bool]
    """Reason -> whether they were at any time since the boot."""
    throttle_events: dict[str, int]
    """Reason -> how often, on boards that count."""

    @property
    def hottest_c(self) -> float | None:
        return max(self.temperatures_c.values(), default=None)


def read(root: Path = SYSFS) -> Board:
    """Reads everything anew, some ten small files. `root` stands for /sys."""
    now, since_boot = _throttled(root)
    return Board(
        model=_text(root / "firmware/devicetree/base/model").strip("\0"),
        temperatures_c=dict(_temperatures(root)),
        throttled=now,
        throttled_since_boot=since_boot,
        throttle_events=dict(_throttle_events(root)),
    )


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    seen: set[str] = set()
    for zone in _sorted(root, "class/thermal/thermal_zone*"):
        kind = _text(zone / "type") or zone.name
        yield from _temperature(_once(kind, seen), zone / "temp")
    for sensor in _sorted(root, "class/hwmon/hwmon*"):
        name = _text(sensor / "name") or sensor.name
        # The kernel shows each thermal zone as a hwmon sensor, too, with dashes made underscores.
        if name in {known.replace("-", "_") for known in seen}:
            continue
        for reading in sorted(sensor.glob("temp*_input")):
            label = _text(reading.with_name(reading.name.replace("_input", "_label")))
            yield from _temperature(_once(f"{name} {label}".strip(), seen), reading)


def _temperature(name: str, file: Path) -> Iterator[tuple[str, float]]:
    value = _number(file)
    if value is not None and _PLAUSIBLE_C[0] < value / 1000 < _PLAUSIBLE_C[1]:
        yield name, value / 1000


def _throttled(root: Path) -> tuple[dict[str, bool], dict[str, bool]]:
    for pattern in _GET_THROTTLED:
        for file in _sorted(root, pattern):
            bits = _number(file, base=16)
            if bits is not None:
                return (
                    {reason: bool(bits >> bit & 1) for reason, bit in _THROTTLED_BITS.items()},
                    {
                        reason: bool(bits >> (bit + _SINCE_BOOT) & 1)
                        for reason, bit in _THROTTLED_BITS.items()
                    },
                )
    for sensor in _sorted(root, "class/hwmon/hwmon*"):
        if _text(sensor / "name") == "rpi_volt":
            alarm = _number(sensor / "in0_lcrit_alarm")
            if alarm is not None:
                return {"under_voltage": bool(alarm)}, {}
    return {}, {}


def _throttle_events(root: Path) -> Iterator[tuple[str, int]]:
    for sensor in _sorted(root, "class/hwmon/hwmon*"):
        if _text(sensor / "name") == "soctherm_oc":
            for number, reason in _OVER_CURRENT.items():
                count = _number(sensor / f"oc{number}_event_cnt")
                if count is not None:
                    yield reason, count


def _once(name: str, seen: set[str]) -> str:
    """The name, with a number where another sensor has it already."""
    unique, number = name, 2
    while unique in seen:
        unique, number = f"{name} {number}", number + 1
    seen.add(unique)
    return unique


def _sorted(root: Path, pattern: str) -> list[Path]:
    return sorted(root.glob(pattern), key=lambda path: (len(path.name), path.name))


def _text(file: Path) -> str:
    """The content of a small file; empty where it cannot be read, as sensors that sleep cannot."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(file: Path, base: int = 10) -> int | None:
    try:
        return int(_text(file), base)
    except ValueError:
        return None
