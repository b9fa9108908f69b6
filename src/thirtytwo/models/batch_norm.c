/* Batch normalisation and an activation in one go; see pointwise.py. Once for each activation:
 *
 *   NAME(f)       what a function is called
 *   ACTIVE(z)     the activation
 *   SLOPED(z, g)  a gradient g of it, times its slope at z
 */

/* y = ACTIVE((x - mean) * scale * gain + bias + added), for `images` of so many pixels.
 *
 *   added   like x, or NULL
 *   gain, bias             (channels)
 *   mean, variance, scale  (channels): what they are for this batch; scale is 1 / sqrt(variance + epsilon)
 *   sums    room: 2 x images x channels
 */
void NAME(normalise)(const float *restrict x, const float *restrict added, const float *restrict gain,
                     const float *restrict bias, float *restrict mean, float *restrict variance, float *restrict scale,
                     float *restrict y, float *restrict sums, double epsilon, long images, long pixels, long channels) {
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
  float factor[MOST_CHANNELS];
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
    factor[c] = scale[c] * gain[c];
  }
#pragma omp parallel for schedule(static)
  for (long i = 0; i < images * pixels; i++)
    for (long c = 0; c < channels; c += LANES) {
      vector z = (LOAD(x + i * channels + c) - LOAD(mean + c)) * LOAD(factor + c) + LOAD(bias + c);
      if (added) z += LOAD(added + i * channels + c);
      STORE(y + i * channels + c, ACTIVE(z));
    }
}

/* Its gradients.
 *
 *   x, added, gain, bias, mean, scale  as above
 *   gradient   of y
 *   inner      like x: the gradient of `added`, and a step on the way; may be `result` if nothing is added
 *   for_gain, for_bias  (channels)
 *   result     of x
 */
void NAME(normalise_back)(const float *restrict x, const float *restrict added, const float *restrict gain,
                          const float *restrict bias, const float *restrict mean, const float *restrict scale,
                          const float *restrict gradient, float *inner, float *restrict for_gain,
                          float *restrict for_bias, float *result, float *restrict sums, long images, long pixels,
                          long channels) {
  float *along = sums + images * channels;
  float factor[MOST_CHANNELS];
  for (long c = 0; c < channels; c++) factor[c] = scale[c] * gain[c];
#pragma omp parallel for schedule(static)
  for (long n = 0; n < images; n++)
    for (long c = 0; c < channels; c += LANES) {
      vector sum = {0}, product = {0};
      for (long i = n * pixels; i < (n + 1) * pixels; i++) {
        const long at = i * channels + c;
        const vector off = LOAD(x + at) - LOAD(mean + c);
        vector z = off * LOAD(factor + c) + LOAD(bias + c);
        if (added) z += LOAD(added + at);
        const vector g = SLOPED(z, LOAD(gradient + at));
        STORE(inner + at, g);
        sum += g;
        product += g * (off * LOAD(scale + c));
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
    for_gain[c] = (float)share[c];
    level[c] = (float)(total[c] / (double)(images * pixels));
    slope[c] = (float)(share[c] / (double)(images * pixels));
  }
#pragma omp parallel for schedule(static)
  for (long i = 0; i < images * pixels; i++)
    for (long c = 0; c < channels; c += LANES) {
      const long at = i * channels + c;
      const vector unit = (LOAD(x + at) - LOAD(mean + c)) * LOAD(scale + c);
      STORE(result + at, LOAD(factor + c) * (LOAD(inner + at) - LOAD(level + c) - unit * LOAD(slope + c)));
    }
}
