from edge_seg.types import I16, U8

def composite(
    front: tuple[U8, U8, U8],
    back: tuple[U8, U8, U8],
    out: tuple[U8, U8, U8],
    offset: I16,
    gain: I16 | None,
    foreground: U8 | None,
    /,
) -> None: ...
