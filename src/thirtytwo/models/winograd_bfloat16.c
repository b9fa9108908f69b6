/* What `winograd.c` multiplies: bfloat16, in pairs of which a processor with AVX512_BF16 adds up the products in float32.
 *
 * The two numbers of a pair follow each other along what is summed over: inner channels in `multiply`, tiles in
 * `gradients`. Transforms stay in float32 and in 256 bits, as wide as Zen 4 computes.
 */

#include <immintrin.h>

typedef unsigned short element __attribute__((may_alias));
typedef int pair __attribute__((aligned(2), may_alias));

#define ROUNDED(value) (__m128i) _mm256_cvtneps_pbh((__m256)(value)) /* to the nearest, or the even one */
#define WRITE(address, value) _mm_storeu_si128((__m128i *)(address), ROUNDED(value))
#define PAIR 2
#define WRITE_PAIR(address, one, other)                                                              \
  _mm256_storeu_si256((__m256i *)(address),                                                          \
                      _mm256_or_si256(_mm256_cvtepu16_epi32(ROUNDED(one)),                           \
                                      _mm256_slli_epi32(_mm256_cvtepu16_epi32(ROUNDED(other)), 16)))

#define SIXTEEN(address) (__m512bh) _mm512_loadu_si512(address) /* pairs */
#define ONE(address) (__m512bh) _mm512_set1_epi32(*(const pair *)(address))

#define ROWS 12 /* by PANEL sums: 24 of 32 registers, more than there are under way; and a divisor of the tiles at once */
#define PANEL 32

/* c (rows, columns) = a (rows, inner) b, for so few rows that their sums are kept in registers. Of b, and of c, it is
 * one panel, of which the first `some` columns exist in c. */
static inline __attribute__((always_inline)) void panel(int rows, const element *restrict a, const element *restrict b,
                                                        float *restrict c, long inner, long columns, long some) {
  __m512 sum[ROWS][2];
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps();
  for (long k = 0; k < inner; k += 2) {
    const __m512bh left = SIXTEEN(b + k * PANEL), right = SIXTEEN(b + k * PANEL + PANEL);
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
      const __m512bh factor = ONE(a + i * inner + k);
      sum[i][0] = _mm512_dpbf16_ps(sum[i][0], factor, left);
      sum[i][1] = _mm512_dpbf16_ps(sum[i][1], factor, right);
    }
  }
  if (some == PANEL) {
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
      _mm512_storeu_ps(c + i * columns, sum[i][0]);
      _mm512_storeu_ps(c + i * columns + 16, sum[i][1]);
    }
  } else {
    const unsigned exist = (1u << some) - 1;
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
      _mm512_mask_storeu_ps(c + i * columns, (__mmask16)exist, sum[i][0]);
      _mm512_mask_storeu_ps(c + i * columns + 16, (__mmask16)(exist >> 16), sum[i][1]);
    }
  }
}

/* c (rows, columns) = a (rows, inner) b, where b lies in panels: (columns / PANEL, rounded up; inner / 2; PANEL; 2). */
static void multiply(const element *restrict a, const element *restrict b, float *restrict c, long rows, long inner,
                     long columns) {
  for (long n = 0; n < columns; n += PANEL, b += inner * PANEL) {
    const long some = columns - n < PANEL ? columns - n : PANEL;
    long m = 0;
    for (; m + ROWS <= rows; m += ROWS) panel(ROWS, a + m * inner, b, c + m * columns + n, inner, columns, some);
    /* Those that are left over, together: one by one they would wait for their own sums. */
#define LEFT(count) \
  case count: \
    panel(count, a + m * inner, b, c + m * columns + n, inner, columns, some); \
    break;
    switch (rows - m) {
      LEFT(1) LEFT(2) LEFT(3) LEFT(4) LEFT(5) LEFT(6) LEFT(7) LEFT(8) LEFT(9) LEFT(10) LEFT(11)
    }
  }
}

#define BLOCK 8 /* outputs that `block` takes with a panel of inputs: 16 sums in registers */
#define CHUNK 256 /* tiles that are packed at once: a panel of them is half of the nearest cache */
#define APART (CHUNK * BLOCK + 32) /* from block to block; a power of two would put all of them in one place of it */
#define PANELS_APART (CHUNK * PANEL + 32)

/* Rows (rows, channels) -> blocks of channels `apart` elements apart, each (rows / 2, rounded up; size; 2), filled up
 * with zeros. */
static inline __attribute__((always_inline)) void pack(int size, long apart, const element *restrict from,
                                                       element *restrict to, long rows, long channels) {
  const long full = (channels + size - 1) / size * size;
  for (long m = 0; m < rows; m += 2)
    for (long c = 0; c < full; c += 8) {
      __m128i one = _mm_setzero_si128(), other = one;
      if (c < channels) {
        one = _mm_loadu_si128((const __m128i *)(from + m * channels + c));
        if (m + 1 < rows) other = _mm_loadu_si128((const __m128i *)(from + (m + 1) * channels + c));
      }
      element *pairs = to + c / size * apart + m * size + c % size * 2;
      _mm_storeu_si128((__m128i *)pairs, _mm_unpacklo_epi16(one, other));
      _mm_storeu_si128((__m128i *)(pairs + 8), _mm_unpackhi_epi16(one, other));
    }
}

/* c (BLOCK, PANEL), in rows of `columns`, grows by a^T b over the tiles of a chunk, or begins with them. */
static inline void block(const element *restrict a, const element *restrict b, float *restrict c, long tiles,
                         long columns, int begins) {
  __m512 sum[BLOCK][2];
#pragma GCC unroll 8
  for (int i = 0; i < BLOCK; i++) {
    sum[i][0] = begins ? _mm512_setzero_ps() : _mm512_loadu_ps(c + i * columns);
    sum[i][1] = begins ? _mm512_setzero_ps() : _mm512_loadu_ps(c + i * columns + 16);
  }
  for (long k = 0; k < tiles; k += 2) {
    const __m512bh left = SIXTEEN(b + k * PANEL), right = SIXTEEN(b + k * PANEL + PANEL);
#pragma GCC unroll 8
    for (int i = 0; i < BLOCK; i++) {
      const __m512bh factor = ONE(a + k * BLOCK + 2 * i);
      sum[i][0] = _mm512_dpbf16_ps(sum[i][0], factor, left);
      sum[i][1] = _mm512_dpbf16_ps(sum[i][1], factor, right);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < BLOCK; i++) {
    _mm512_storeu_ps(c + i * columns, sum[i][0]);
    _mm512_storeu_ps(c + i * columns + 16, sum[i][1]);
  }
}

int omp_get_thread_num(void);

/* Gradients of products (points, tiles, outputs), transposed, times transformed images (points, tiles, inputs) ->
 * gradients of transformed weights (points, outputs, columns): inputs, and zeros up to whole panels.
 *
 *   *_plane   numbers from point to point
 *   rooms     for each of the threads, blocks of outputs and panels of inputs, APART and PANELS_APART: `room` elements
 *
 * One thread adds up all of a point, so that the sums are the same for any number of threads.
 */
void gradients(const element *restrict products, const element *restrict images, float *restrict result,
               element *restrict rooms, long points, long tiles, long inputs, long outputs, long products_plane,
               long images_plane, long result_plane, long room, long threads) {
  const long columns = (inputs + PANEL - 1) / PANEL * PANEL;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (long point = 0; point < points; point++) {
    element *blocks = rooms + omp_get_thread_num() * room, *panels = blocks + outputs / BLOCK * APART;
    for (long first = 0; first < tiles; first += CHUNK) {
      const long some = tiles - first < CHUNK ? tiles - first : CHUNK;
      pack(BLOCK, APART, products + point * products_plane + first * outputs, blocks, some, outputs);
      pack(PANEL, PANELS_APART, images + point * images_plane + first * inputs, panels, some, inputs);
      for (long n = 0; n < columns; n += PANEL)
        for (long m = 0; m < outputs; m += BLOCK)
          block(blocks + m / BLOCK * APART, panels + n / PANEL * PANELS_APART,
                result + point * result_plane + m * columns + n, some, columns, first == 0);
    }
  }
}
