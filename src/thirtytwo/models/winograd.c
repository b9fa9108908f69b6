/* Winograd's convolution of tiles of M x M outputs; see winograd.py, which puts in front of this file what depends on
 * M: SIDE = M + 2, the number of pixels along a tile's input; the name of each function; and the transforms along one
 * dimension, each from `d` (steps of `s` vectors) to `out` (steps of `t`):
 *
 *   input_1d     SIDE -> SIDE, B^T        input_1d_back   SIDE -> SIDE, B
 *   output_1d    SIDE -> M,    A^T        output_1d_back  M -> SIDE,    A
 *   weights_1d   3 -> SIDE,    G          weights_1d_back  SIDE -> 3,   G^T
 *
 * and input_1d_out and output_1d_back_out, to steps of `t` elements.
 *
 * Images are float (images, height, width, channels); transformed ones (SIDE * SIDE, images * tiles, channels), `plane`
 * numbers apart in the first dimension. What is multiplied is of the type `element`, what comes of it is float. That
 * type, the products, and PANEL outputs and PAIR inputs whose weights lie together, are one of winograd_float32.c and
 * winograd_bfloat16.c, which comes before all this.
 *
 * Pixels that a tile has beyond its image are zeros when read, and forgotten when written. Tiles lie in rows, `across`
 * of them, `down` rows an image; they cover all outputs that are wanted. Channels come in LANES.
 *
 * Threads take groups of so few images that what they compute with stays in the cache.
 */

#ifndef AT
typedef int whole __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef unsigned char bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

#define AT(address) ((vector *)(address))
#define LINE(type) (64 / (long)sizeof(type)) /* how many are in a line of the cache */
/* Begin to fetch what comes next of so many planes, too many for the processor to see by itself. */
#define FETCH(next, plane, count, writes) \
  for (long ahead = 0; ahead < (count); ahead++) __builtin_prefetch((next) + ahead * (plane), writes)

int omp_get_thread_num(void);
#endif

static void NAME(input)(const float *restrict image, element *restrict transformed, long images, long height,
                        long width, long down, long across, long channels, long plane) {
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
        element *to = transformed + ((n * down + y) * across + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
          vector d[SIDE * SIDE], e[SIDE * SIDE];
          for (int i = 0; i < SIDE * SIDE; i++) d[i] = LOAD(pixel[i] + c);
          for (int j = 0; j < SIDE; j++) NAME(input_1d)(d + j, SIDE, e + j, SIDE);
          if (c % LINE(element) == 0) FETCH(to + c + LINE(element), plane, SIDE * SIDE, 1);
          for (int i = 0; i < SIDE; i++) NAME(input_1d_out)(e + i * SIDE, 1, to + c + i * SIDE * plane, plane);
        }
      }
}

static void NAME(input_back)(const float *restrict transformed, float *restrict image, long images, long height,
                             long width, long down, long across, long channels, long plane) {
  const long step = plane / LANES;
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
          if (c % LINE(float) == 0) FETCH(from + c + LINE(float), plane, SIDE * SIDE, 0);
          for (int j = 0; j < SIDE; j++) NAME(input_1d_back)(AT(from + c) + j * step, SIDE * step, e + j, SIDE);
          for (int i = 0; i < SIDE; i++) NAME(input_1d_back)(e + i * SIDE, 1, d + i * SIDE, 1);
          for (int i = 0; i < SIDE * SIDE; i++) STORE(pixel[i] + c, LOAD(pixel[i] + c) + d[i]);
        }
      }
  }
}

static void NAME(output)(const float *restrict transformed, float *restrict image, long images, long height, long width,
                         long down, long across, long channels, long plane) {
  const long step = plane / LANES;
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
          vector e[M * SIDE], f[M * M];
          if (c % LINE(float) == 0) FETCH(from + c + LINE(float), plane, SIDE * SIDE, 0);
          for (int j = 0; j < SIDE; j++) NAME(output_1d)(AT(from + c) + j * step, SIDE * step, e + j, SIDE);
          for (int i = 0; i < M; i++) NAME(output_1d)(e + i * SIDE, 1, f + i * M, 1);
          for (int i = 0; i < M * M; i++) STORE(pixel[i] + c, f[i]);
        }
      }
}

static void NAME(output_back)(const float *restrict image, element *restrict transformed, long images, long height,
                              long width, long down, long across, long channels, long plane) {
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
        element *to = transformed + ((n * down + y) * across + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
          vector d[M * M], e[SIDE * M];
          for (int i = 0; i < M * M; i++) d[i] = LOAD(pixel[i] + c);
          for (int j = 0; j < M; j++) NAME(output_1d_back)(d + j, M, e + j, M);
          if (c % LINE(element) == 0) FETCH(to + c + LINE(element), plane, SIDE * SIDE, 1);
          for (int i = 0; i < SIDE; i++) NAME(output_1d_back_out)(e + i * M, 1, to + c + i * SIDE * plane, plane);
        }
      }
}

#if M % 2 == 0
/* The same, of which only the largest of each 2 x 2 pixels is written, and which of the four it is; of equal ones the
 * first. `rows` and `columns` are those of the result. */
static void NAME(output_pooled)(const float *restrict transformed, float *restrict image, unsigned char *restrict which,
                                long images, long rows, long columns, long down, long across, long channels,
                                long plane) {
  const long step = plane / LANES;
  for (long n = 0; n < images; n++)
    for (long y = 0; y < down; y++)
      for (long x = 0; x < across; x++) {
        const float *from = transformed + ((n * down + y) * across + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
          vector e[M * SIDE], f[M * M];
          if (c % LINE(float) == 0) FETCH(from + c + LINE(float), plane, SIDE * SIDE, 0);
          for (int j = 0; j < SIDE; j++) NAME(output_1d)(AT(from + c) + j * step, SIDE * step, e + j, SIDE);
          for (int i = 0; i < M; i++) NAME(output_1d)(e + i * SIDE, 1, f + i * M, 1);
          for (long i = 0; i < M / 2; i++)
            for (long j = 0; j < M / 2; j++) {
              const long h = y * (M / 2) + i, w = x * (M / 2) + j, to = ((n * rows + h) * columns + w) * channels + c;
              if (h >= rows || w >= columns) continue;
              const vector *corner = f + 2 * (i * M + j);
              vector most = corner[0];
              whole at = {0};
              for (int k = 1; k < 4; k++) {
                const vector other = corner[k / 2 * M + k % 2];
                const whole larger = (whole)(other > most) | (whole)(other != other); /* what is not a number stays */
                most = (vector)((larger & (whole)other) | (~larger & (whole)most));
                at = (larger & k) | (~larger & at);
              }
              STORE(image + to, most);
              *(bytes *)(which + to) = __builtin_convertvector(at, bytes);
            }
        }
      }
}

static void NAME(output_pooled_back)(const float *restrict image, const unsigned char *restrict which,
                                     element *restrict transformed, long images, long rows, long columns, long down,
                                     long across, long channels, long plane) {
  for (long n = 0; n < images; n++)
    for (long y = 0; y < down; y++)
      for (long x = 0; x < across; x++) {
        element *to = transformed + ((n * down + y) * across + x) * channels;
        for (long c = 0; c < channels; c += LANES) {
          vector d[M * M], e[SIDE * M];
          for (long i = 0; i < M / 2; i++)
            for (long j = 0; j < M / 2; j++) {
              const long h = y * (M / 2) + i, w = x * (M / 2) + j, at = ((n * rows + h) * columns + w) * channels + c;
              vector gradient = {0};
              whole taken = {0};
              if (h < rows && w < columns) {
                gradient = LOAD(image + at);
                taken = __builtin_convertvector(*(const bytes *)(which + at), whole);
              }
              for (int k = 0; k < 4; k++)
                d[2 * (i * M + j) + k / 2 * M + k % 2] = (vector)((whole)(taken == k) & (whole)gradient);
            }
          if (c % LINE(element) == 0) FETCH(to + c + LINE(element), plane, SIDE * SIDE, 1);
          for (int j = 0; j < M; j++) NAME(output_1d_back)(d + j, M, e + j, M);
          for (int i = 0; i < SIDE; i++) NAME(output_1d_back_out)(e + i * M, 1, to + c + i * SIDE * plane, plane);
        }
      }
}
#endif

/* Weights, of which output o, input i and place p (of nine) lies at o * of_output + i * of_input + p * of_place ->
 * SIDE * SIDE matrices of inputs x outputs, in panels as `multiply` takes them, filled up with zeros. */
void NAME(weights)(const float *restrict weights, element *restrict panels, long inputs, long outputs, long of_output,
                   long of_input, long of_place) {
  const long count = (outputs + PANEL - 1) / PANEL;
#pragma omp parallel for schedule(static)
  for (long n = 0; n < count; n++)
    for (long i = 0; i < inputs; i += PAIR) {
      float gathered[PAIR][9][PANEL];
      for (long k = 0; k < PAIR; k++)
        for (long lane = 0; lane < PANEL; lane++)
          for (long place = 0; place < 9; place++) {
            const long o = n * PANEL + lane;
            gathered[k][place][lane] = o < outputs ? weights[o * of_output + (i + k) * of_input + place * of_place] : 0;
          }
      for (long half = 0; half < PANEL; half += LANES) {
        vector d[9], e[SIDE * 3], f[PAIR][SIDE * SIDE];
        for (int k = 0; k < PAIR; k++) {
          for (int place = 0; place < 9; place++) d[place] = LOAD(gathered[k][place] + half);
          for (int j = 0; j < 3; j++) NAME(weights_1d)(d + j, 3, e + j, 3);
          for (int j = 0; j < SIDE; j++) NAME(weights_1d)(e + j * 3, 1, f[k] + j * SIDE, 1);
        }
        for (int j = 0; j < SIDE * SIDE; j++)
          WRITE_PAIR(panels + ((j * count + n) * inputs + i) * PANEL + half * PAIR, f[0][j], f[PAIR - 1][j]);
      }
    }
}

#ifdef BLOCK
/* Their gradients: from those of transformed ones, planes (outputs, columns), of which the first are `inputs`, to
 * (outputs, nine, inputs). In float32 torch does it. */
void NAME(weights_back)(const float *restrict transformed, float *restrict weights, long inputs, long outputs,
                        long columns, long plane) {
  const long step = plane / LANES;
#pragma omp parallel for schedule(static)
  for (long o = 0; o < outputs; o++)
    for (long i = 0; i < inputs; i += LANES) {
      const float *from = transformed + o * columns + i;
      vector e[3 * SIDE], f[9];
      if (i % LINE(float) == 0) FETCH(from + LINE(float), plane, SIDE * SIDE, 0);
      for (int j = 0; j < SIDE; j++) NAME(weights_1d_back)(AT(from) + j * step, SIDE * step, e + j, SIDE);
      for (int k = 0; k < 3; k++) NAME(weights_1d_back)(e + k * SIDE, 1, f + k * 3, 1);
      for (long place = 0; place < 9; place++) STORE(weights + (o * 9 + place) * inputs + i, f[place]);
    }
}
#endif

/* images (.., inputs) -> result (.., outputs), with the transformed images on the way.
 *
 *   weights  (SIDE * SIDE) matrices of inputs x outputs, in panels as `multiply` takes them
 *   which    room for the places that pooling takes pixels from, or NULL; with it the result has half the size
 *   rooms    for each of the threads, SIDE * SIDE planes of `room` numbers: a group's tiles times outputs at least
 */
void NAME(forward)(const float *restrict image, const element *restrict weights, element *restrict transformed,
                   float *restrict result, unsigned char *restrict which, float *restrict rooms, long images,
                   long height, long width, long inputs, long outputs, long plane, long room, long group,
                   long threads) {
  const long rows = which ? height / 2 : height, columns = which ? width / 2 : width, unit = which ? M / 2 : M;
  const long down = (rows + unit - 1) / unit, across = (columns + unit - 1) / unit, tiles = down * across;
  const long matrix = inputs * ((outputs + PANEL - 1) / PANEL * PANEL);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (long first = 0; first < images; first += group) {
    const long some = images - first < group ? images - first : group, at = first * rows * columns * outputs;
    float *products = rooms + omp_get_thread_num() * SIDE * SIDE * room;
    element *own = transformed + first * tiles * inputs;
    NAME(input)(image + first * height * width * inputs, own, some, height, width, down, across, inputs, plane);
    for (long i = 0; i < SIDE * SIDE; i++)
      multiply(own + i * plane, weights + i * matrix, products + i * room, some * tiles, inputs, outputs);
    if (!which)
      NAME(output)(products, result + at, some, rows, columns, down, across, outputs, room);
#if M % 2 == 0
    else
      NAME(output_pooled)(products, result + at, which + at, some, rows, columns, down, across, outputs, room);
#endif
  }
}

/* gradient (.., outputs) -> that of the products, and from there to result (.., inputs), unless that is NULL.
 *
 *   weights  the same matrices transposed: outputs x inputs
 *   height, width  of the images, as above
 */
void NAME(backward)(const float *restrict gradient, const element *restrict weights, element *restrict transformed,
                    float *restrict result, const unsigned char *restrict which, float *restrict rooms, long images,
                    long height, long width, long inputs, long outputs, long plane, long room, long group,
                   long threads) {
  const long rows = which ? height / 2 : height, columns = which ? width / 2 : width, unit = which ? M / 2 : M;
  const long down = (rows + unit - 1) / unit, across = (columns + unit - 1) / unit, tiles = down * across;
  const long matrix = outputs * ((inputs + PANEL - 1) / PANEL * PANEL);
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (long first = 0; first < images; first += group) {
    const long some = images - first < group ? images - first : group, at = first * rows * columns * outputs;
    float *products = rooms + omp_get_thread_num() * SIDE * SIDE * room;
    element *own = transformed + first * tiles * outputs;
    if (!which)
      NAME(output_back)(gradient + at, own, some, rows, columns, down, across, outputs, plane);
#if M % 2 == 0
    else
      NAME(output_pooled_back)(gradient + at, which + at, own, some, rows, columns, down, across, outputs, plane);
#endif
    if (!result) continue;
    for (long i = 0; i < SIDE * SIDE; i++)
      multiply(own + i * plane, weights + i * matrix, products + i * room, some * tiles, outputs, inputs);
    NAME(input_back)(products, result + first * height * width * inputs, some, height, width, down, across, inputs,
                     room);
  }
}
