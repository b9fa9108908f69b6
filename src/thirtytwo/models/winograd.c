/* The four transforms of Winograd's convolution, for tiles of M x M outputs; see winograd.py, which puts in front of
 * this file what depends on M: SIDE = M + 2, the number of pixels along a tile's input; the name of each function; and
 * the transforms along one dimension, each from `d` (steps of `s` vectors) to `o` (steps of `t`):
 *
 *   input_1d     SIDE -> SIDE, B^T        input_1d_back   SIDE -> SIDE, B
 *   output_1d    SIDE -> M,    A^T        output_1d_back  M -> SIDE,    A
 *
 * Images are float (images, height, width, channels); transformed ones float (SIDE * SIDE, images * tiles, channels),
 * `plane` numbers apart in the first dimension.
 * Pixels that a tile has beyond its image are zeros when read, and forgotten when written. Channels come in LANES.
 */

void NAME(input)(const float *restrict image, float *restrict transformed, long images, long height, long width,
                 long channels, long plane) {
  const long down = (height + M - 1) / M, across = (width + M - 1) / M;
#pragma omp parallel for collapse(2) schedule(static)
  for (long n = 0; n < images; n++)
    for (long y = 0; y < down; y++)
      for (long x = 0; x < across; x++) {
        const float *pixel[SIDE * SIDE];
        for (long i = 0; i < SIDE; i++)
          for (long j = 0; j < SIDE; j++) {
            const long h = y * M + i - 1, w = x * M + j - 1;
            const int inside = h >= 0 && h < height && w >= 0 && w < width;
            pixel[i * SIDE + j] = inside ? image + ((n * height + h) * width + w) * channels : zeros;
          }
        float *to = transformed + ((n * down + y) * across + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
          vector d[SIDE * SIDE], e[SIDE * SIDE];
          for (int i = 0; i < SIDE * SIDE; i++) d[i] = LOAD(pixel[i] + c);
          for (int j = 0; j < SIDE; j++) NAME(input_1d)(d + j, SIDE, e + j, SIDE);
          for (int i = 0; i < SIDE; i++) NAME(input_1d)(e + i * SIDE, 1, d + i * SIDE, 1);
          for (int i = 0; i < SIDE * SIDE; i++) STORE(to + i * plane + c, d[i]);
        }
      }
}

void NAME(input_back)(const float *restrict transformed, float *restrict image, long images, long height, long width,
                      long channels, long plane) {
  const long down = (height + M - 1) / M, across = (width + M - 1) / M;
#pragma omp parallel for schedule(static)
  for (long n = 0; n < images; n++) { /* tiles overlap: one thread adds up all of an image's */
    float *first = image + n * height * width * channels;
    for (long i = 0; i < height * width * channels; i++) first[i] = 0;
    float beyond[MOST_CHANNELS];
    for (long c = 0; c < channels; c++) beyond[c] = 0;
    for (long y = 0; y < down; y++)
      for (long x = 0; x < across; x++) {
        float *pixel[SIDE * SIDE];
        for (long i = 0; i < SIDE; i++)
          for (long j = 0; j < SIDE; j++) {
            const long h = y * M + i - 1, w = x * M + j - 1;
            const int inside = h >= 0 && h < height && w >= 0 && w < width;
            pixel[i * SIDE + j] = inside ? first + (h * width + w) * channels : beyond;
          }
        const float *from = transformed + ((n * down + y) * across + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
          vector d[SIDE * SIDE], e[SIDE * SIDE];
          for (int i = 0; i < SIDE * SIDE; i++) d[i] = LOAD(from + i * plane + c);
          for (int j = 0; j < SIDE; j++) NAME(input_1d_back)(d + j, SIDE, e + j, SIDE);
          for (int i = 0; i < SIDE; i++) NAME(input_1d_back)(e + i * SIDE, 1, d + i * SIDE, 1);
          for (int i = 0; i < SIDE * SIDE; i++) STORE(pixel[i] + c, LOAD(pixel[i] + c) + d[i]);
        }
      }
  }
}

void NAME(output)(const float *restrict transformed, float *restrict image, long images, long height, long width,
                  long channels, long plane) {
  const long down = (height + M - 1) / M, across = (width + M - 1) / M;
#pragma omp parallel for collapse(2) schedule(static)
  for (long n = 0; n < images; n++)
    for (long y = 0; y < down; y++)
      for (long x = 0; x < across; x++) {
        float beyond[MOST_CHANNELS];
        float *pixel[M * M];
        for (long i = 0; i < M; i++)
          for (long j = 0; j < M; j++) {
            const long h = y * M + i, w = x * M + j;
            const int inside = h < height && w < width;
            pixel[i * M + j] = inside ? image + ((n * height + h) * width + w) * channels : beyond;
          }
        const float *from = transformed + ((n * down + y) * across + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
          vector d[SIDE * SIDE], e[M * SIDE], f[M * M];
          for (int i = 0; i < SIDE * SIDE; i++) d[i] = LOAD(from + i * plane + c);
          for (int j = 0; j < SIDE; j++) NAME(output_1d)(d + j, SIDE, e + j, SIDE);
          for (int i = 0; i < M; i++) NAME(output_1d)(e + i * SIDE, 1, f + i * M, 1);
          for (int i = 0; i < M * M; i++) STORE(pixel[i] + c, f[i]);
        }
      }
}

void NAME(output_back)(const float *restrict image, float *restrict transformed, long images, long height, long width,
                       long channels, long plane) {
  const long down = (height + M - 1) / M, across = (width + M - 1) / M;
#pragma omp parallel for collapse(2) schedule(static)
  for (long n = 0; n < images; n++)
    for (long y = 0; y < down; y++)
      for (long x = 0; x < across; x++) {
        const float *pixel[M * M];
        for (long i = 0; i < M; i++)
          for (long j = 0; j < M; j++) {
            const long h = y * M + i, w = x * M + j;
            const int inside = h < height && w < width;
            pixel[i * M + j] = inside ? image + ((n * height + h) * width + w) * channels : zeros;
          }
        float *to = transformed + ((n * down + y) * across + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
          vector d[M * M], e[SIDE * M], f[SIDE * SIDE];
          for (int i = 0; i < M * M; i++) d[i] = LOAD(pixel[i] + c);
          for (int j = 0; j < M; j++) NAME(output_1d_back)(d + j, M, e + j, M);
          for (int i = 0; i < SIDE; i++) NAME(output_1d_back)(e + i * M, 1, f + i * SIDE, 1);
          for (int i = 0; i < SIDE * SIDE; i++) STORE(to + i * plane + c, f[i]);
        }
      }
}
