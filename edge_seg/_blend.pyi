from edge_seg.types import F32, U8

def composite(
    front: tuple[U8, U8, U8],
    back: tuple[U8, U8, U8],
    out: tuple[U8, U8, U8],
    offset: F32,
    gain: F32 | None,
    foreground: U8 | None,
    /,
) -> None: ...
