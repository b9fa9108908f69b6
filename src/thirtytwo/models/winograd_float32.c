/* What `winograd.c` multiplies: numbers as they are, in vectors of any processor. */

typedef float element;
#define WRITE(address, value) STORE(address, value)
#define PAIR 1 /* inner channels whose weights lie together */
#define WRITE_PAIR(address, one, other) STORE(address, one)

#define ROWS 6 /* by PANEL sums, two vectors by which they grow, and a factor: with AVX2, 15 of its 16 registers */
#define PANEL (2 * LANES)

/* c (rows, columns) = a (rows, inner) b, for so few rows that their sums are kept in registers. Of b, and of c, it is
 * one panel; `whole` is false if only the first half of it exists in c. */
static inline __attribute__((always_inline)) void panel(int rows, const float *restrict a, const float *restrict b,
                                                        float *restrict c, long inner, long columns, int whole) {
  vector sum[ROWS][2];
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++) sum[i][0] = sum[i][1] = (vector){0};
  for (long k = 0; k < inner; k++) {
    const vector left = LOAD(b + k * PANEL), right = LOAD(b + k * PANEL + LANES);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++) {
      sum[i][0] += a[i * inner + k] * left;
      sum[i][1] += a[i * inner + k] * right;
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < rows; i++) {
    STORE(c + i * columns, sum[i][0]);
    if (whole) STORE(c + i * columns + LANES, sum[i][1]);
  }
}

/* c (rows, columns) = a (rows, inner) b, where b lies in panels: (columns / PANEL, rounded up; inner; PANEL). */
static void multiply(const float *restrict a, const float *restrict b, float *restrict c, long rows, long inner,
                     long columns) {
  for (long n = 0; n < columns; n += PANEL, b += inner * PANEL) {
    const int whole = columns - n >= PANEL;
    long m = 0;
    for (; m + ROWS <= rows; m += ROWS) panel(ROWS, a + m * inner, b, c + m * columns + n, inner, columns, whole);
    for (; m < rows; m++) panel(1, a + m * inner, b, c + m * columns + n, inner, columns, whole);
  }
}
