#!/bin/sh
# Makes person.mp4 from Debian's package forensics-samples-files. See ATTRIBUTION.md.
# Usage: make-clip.sh movie2/movie-hello.mp4 OUT.mp4
set -eu
# The webcam's inset, 5 s of it forwards and back again: it can be repeated without a jump.
ffmpeg -v error -y -i "$1" -an -filter_complex "
  [0:v]crop=248:186:116:85,trim=start_frame=20:end_frame=170,setpts=N/30/TB,scale=640:480:flags=lanczos,split[a][b];
  [b]reverse,trim=start_frame=1:end_frame=149,setpts=N/30/TB[c];
  [a][c]concat=n=2:v=1:a=0,setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv" \
  -r 30 -c:v libx264 -preset veryslow -crf 19 -g 30 -bf 0 -pix_fmt yuv420p \
  -movflags +faststart -map_metadata -1 -fflags +bitexact -flags:v +bitexact "$2"
