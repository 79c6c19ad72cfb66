from edge_seg.types import F32, I16, U8

def refine(
    mask: F32,
    y: U8,
    u: U8,
    v: U8,
    gain: I16,
    offset: I16,
    foreground: U8,
    radius: int,
    smoothing: int,
    passes: int,
    epsilon: float,
    chroma_scale: float,
    weight_floor: float,
    low: float,
    high: float,
    sharpness: float,
    level: float,
    steepest: float,
    negligible: float,
    /,
) -> None: ...
def draw_out(mask: F32, offset: I16, level: float, /) -> None: ...
