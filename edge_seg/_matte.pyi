from edge_seg.types import F32, U8

def refine(
    mask: F32,
    y: U8,
    u: U8,
    v: U8,
    gain: F32,
    offset: F32,
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
