/* GELU, and what batch normalisation (batch_norm.c) needs; see pointwise.py. Images are float (images, height, width,
 * channels), channels in LANES. Sums over a batch are those of its images, added in their order: the same bits for any
 * number of threads. */

typedef int whole __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline vector chosen(whole which, vector yes, vector no) {
  return (vector)((which & (whole)yes) | (~which & (whole)no));
}

/* exp of numbers from -87 to 0, to 2e-7 of the result; smaller ones count as -87 (Moshier, Cephes). */
static inline vector exponential(vector x) {
  const vector least = (vector){0} - 87.0f;
  x = chosen((whole)(x < least), least, x);
  const float rounds = 12582912.0f; /* 1.5 * 2^23: its last bit is 1 */
  const vector power = (x * 1.44269504f + rounds) - rounds;
  const vector r = x - power * 0.693359375f + power * 2.12194440e-4f;
  vector p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (vector)((__builtin_convertvector(power, whole) + 127) << 23);
}

/* Density and distribution of the normal distribution, to 2e-7 (Abramowitz & Stegun 7.1.26). */
static inline void normal(vector z, vector *density, vector *below) {
  const vector e = exponential(-0.5f * z * z), distance = chosen((whole)(z < 0.0f), -z, z);
  const vector t = 1.0f / (1.0f + 0.2316418882f * distance);
  vector p = 1.061405429f * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const vector beyond = 0.5f * p * t * e;
  *below = chosen((whole)(z < 0.0f), beyond, 1.0f - beyond);
  *density = 0.3989422804f * e;
}

static inline vector gelu_of(vector z) {
  vector density, below;
  normal(z, &density, &below);
  return z * below;
}

static inline vector gelu_slope(vector z) {
  vector density, below;
  normal(z, &density, &below);
  return below + z * density;
}

void gelu(const float *restrict x, float *restrict y, long vectors) {
#pragma omp parallel for schedule(static)
  for (long i = 0; i < vectors; i++) STORE(y + i * LANES, gelu_of(LOAD(x + i * LANES)));
}

void gelu_back(const float *restrict x, const float *restrict gradient, float *restrict result, long vectors) {
#pragma omp parallel for schedule(static)
  for (long i = 0; i < vectors; i++)
    STORE(result + i * LANES, LOAD(gradient + i * LANES) * gelu_slope(LOAD(x + i * LANES)));
}

/* Sums over the images, (images, channels) -> (channels). */
static void add_up(const float *restrict of_images, double *restrict result, long images, long channels) {
  for (long c = 0; c < channels; c++) result[c] = 0;
  for (long n = 0; n < images; n++)
    for (long c = 0; c < channels; c++) result[c] += of_images[n * channels + c];
}
