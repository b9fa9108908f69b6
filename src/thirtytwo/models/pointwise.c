/* Batch normalisation and GELU in one go; see pointwise.py. Images are float (images, height, width,
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

/* y = GELU((x - mean) * scale + bias + added), for `images` of so many pixels.
 *
 *   added   like x, or NULL
 *   mean, variance, scale  (channels): what they are for this batch; scale is 1 / sqrt(variance + epsilon)
 *   sums    room: 2 x images x channels
 */
void normalise(const float *restrict x, const float *restrict added, const float *restrict bias, float *restrict mean,
               float *restrict variance, float *restrict scale, float *restrict y, float *restrict sums, double epsilon,
               long images, long pixels, long channels) {
  float *squares = sums + images * channels;
#pragma omp parallel for schedule(static)
  for (long n = 0; n < images; n++)
    for (long c = 0; c < channels; c += LANES) {
      const float *own = x + n * pixels * channels + c;
      vector sum = {0}, square = {0};
      for (long i = 0; i < pixels; i++) sum += LOAD(own + i * channels);
      const vector middle = sum / (float)pixels;
      for (long i = 0; i < pixels; i++) {
        const vector off = LOAD(own + i * channels) - middle;
        square += off * off;
      }
      STORE(sums + n * channels + c, sum);
      STORE(squares + n * channels + c, square);
    }
  double total[MOST_CHANNELS], spread[MOST_CHANNELS];
  add_up(sums, total, images, channels);
  add_up(squares, spread, images, channels); /* about each image's own mean, so far */
  for (long c = 0; c < channels; c++) total[c] /= (double)(images * pixels);
  for (long n = 0; n < images; n++)
    for (long c = 0; c < channels; c++) {
      const double off = sums[n * channels + c] / (double)pixels - total[c];
      spread[c] += off * off * (double)pixels;
    }
  for (long c = 0; c < channels; c++) {
    const double of_batch = spread[c] / (double)(images * pixels);
    mean[c] = (float)total[c];
    variance[c] = (float)of_batch;
    scale[c] = (float)(1 / __builtin_sqrt(of_batch + epsilon));
  }
#pragma omp parallel for schedule(static)
  for (long i = 0; i < images * pixels; i++)
    for (long c = 0; c < channels; c += LANES) {
      vector z = (LOAD(x + i * channels + c) - LOAD(mean + c)) * LOAD(scale + c) + LOAD(bias + c);
      if (added) z += LOAD(added + i * channels + c);
      STORE(y + i * channels + c, gelu_of(z));
    }
}

/* Its gradients.
 *
 *   x, added, bias, mean, scale  as above
 *   gradient   of y
 *   inner      like x: the gradient of `added`, and a step on the way; may be `result` if nothing is added
 *   for_bias   (channels)
 *   result     of x
 */
void normalise_back(const float *restrict x, const float *restrict added, const float *restrict bias,
                    const float *restrict mean, const float *restrict scale, const float *restrict gradient,
                    float *inner, float *restrict for_bias, float *result, float *restrict sums, long images,
                    long pixels, long channels) {
  float *along = sums + images * channels;
#pragma omp parallel for schedule(static)
  for (long n = 0; n < images; n++)
    for (long c = 0; c < channels; c += LANES) {
      vector sum = {0}, product = {0};
      for (long i = n * pixels; i < (n + 1) * pixels; i++) {
        const long at = i * channels + c;
        const vector unit = (LOAD(x + at) - LOAD(mean + c)) * LOAD(scale + c);
        vector z = unit + LOAD(bias + c);
        if (added) z += LOAD(added + at);
        const vector g = LOAD(gradient + at) * gelu_slope(z);
        STORE(inner + at, g);
        sum += g;
        product += g * unit;
      }
      STORE(sums + n * channels + c, sum);
      STORE(along + n * channels + c, product);
    }
  double total[MOST_CHANNELS], share[MOST_CHANNELS];
  float level[MOST_CHANNELS], slope[MOST_CHANNELS];
  add_up(sums, total, images, channels);
  add_up(along, share, images, channels);
  for (long c = 0; c < channels; c++) {
    for_bias[c] = (float)total[c];
    level[c] = (float)(total[c] / (double)(images * pixels));
    slope[c] = (float)(share[c] / (double)(images * pixels));
  }
#pragma omp parallel for schedule(static)
  for (long i = 0; i < images * pixels; i++)
    for (long c = 0; c < channels; c += LANES) {
      const long at = i * channels + c;
      const vector unit = (LOAD(x + at) - LOAD(mean + c)) * LOAD(scale + c);
      STORE(result + at, LOAD(scale + c) * (LOAD(inner + at) - LOAD(level + c) - unit * LOAD(slope + c)));
    }
}
