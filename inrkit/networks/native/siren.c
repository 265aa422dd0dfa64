/* Training and evaluation of many small SIRENs, one a tile. See inrkit/networks/native/__init__.py. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 16
#define PANEL 4
#else
#define LANES 8
#define PANEL 2
#endif
#define STEP (LANES * PANEL) /* points of a panel: PANEL vectors of LANES points */
#define BLOCK 256            /* points that pass through a network at a time; a multiple of STEP */

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define LOAD(pointer) (*(const vector *)(pointer))

typedef struct {
    int64_t dimensions, channels, width, hidden; /* hidden: sine layers after the first */
    float first_omega, hidden_omega;
} Shape;

/* out[j][p] = bias[j] + sum over i of weight[j * row + i * column] * in[i][p], for `points` p, a multiple of STEP.
 * Features are rows of BLOCK points. No bias for NULL. */
static void multiply(int64_t outputs, int64_t inputs, const float *weight, int64_t row, int64_t column,
                     const float *bias, const float *in, float *out, int64_t points) {
    for (int64_t p = 0; p < points; p += STEP) {
        int64_t j = 0;
        for (; j + 4 <= outputs; j += 4) {
            vector sum[4][PANEL];
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < PANEL; c++) sum[r][c] = (vector){0} + (bias ? bias[j + r] : 0.0f);
            const float *w = weight + j * row;
            for (int64_t i = 0; i < inputs; i++) {
                const float *x = in + i * BLOCK + p;
                vector value[PANEL];
                for (int c = 0; c < PANEL; c++) value[c] = *(const vector *)(x + c * LANES);
                for (int r = 0; r < 4; r++) {
                    float factor = w[r * row + i * column];
                    for (int c = 0; c < PANEL; c++) sum[r][c] += factor * value[c];
                }
            }
            for (int r = 0; r < 4; r++)
                for (int c = 0; c < PANEL; c++) *(vector *)(out + (j + r) * BLOCK + p + c * LANES) = sum[r][c];
        }
        for (; j < outputs; j++) {
            vector sum[PANEL];
            for (int c = 0; c < PANEL; c++) sum[c] = (vector){0} + (bias ? bias[j] : 0.0f);
            for (int64_t i = 0; i < inputs; i++)
                for (int c = 0; c < PANEL; c++)
                    sum[c] += weight[j * row + i * column] * *(const vector *)(in + i * BLOCK + p + c * LANES);
            for (int c = 0; c < PANEL; c++) *(vector *)(out + j * BLOCK + p + c * LANES) = sum[c];
        }
    }
}

typedef float quarter __attribute__((vector_size(16)));

static inline float total(vector values) {
    quarter parts[LANES / 4], sum;
    memcpy(parts, &values, sizeof parts);
    sum = parts[0] + parts[1];
    for (int c = 2; c < LANES / 4; c++) sum += parts[c];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* gradient[j][i] += sum over p of slope[j][p] * in[i][p]; bias[j] += sum over p of slope[j][p]. */
static void correlate(int64_t outputs, int64_t inputs, const float *slope, const float *in, float *gradient,
                      float *bias, int64_t points) {
    for (int64_t j = 0; j < outputs; j += 4) {
        int64_t rows = outputs - j < 4 ? outputs - j : 4;
        for (int64_t i = 0; i < inputs; i += 4) {
            int64_t columns = inputs - i < 4 ? inputs - i : 4;
            if (rows == 4 && columns == 4) {
                const float *s0 = slope + j * BLOCK, *x0 = in + i * BLOCK;
                vector a0 = {0}, a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
                vector c0 = a0, c1 = a0, c2 = a0, c3 = a0, d0 = a0, d1 = a0, d2 = a0, d3 = a0;
                for (int64_t p = 0; p < points; p += LANES) {
                    vector e0 = LOAD(x0 + p), e1 = LOAD(x0 + BLOCK + p), e2 = LOAD(x0 + 2 * BLOCK + p), e3 = LOAD(x0 + 3 * BLOCK + p);
                    vector f = LOAD(s0 + p);
                    a0 += f * e0; a1 += f * e1; a2 += f * e2; a3 += f * e3;
                    f = LOAD(s0 + BLOCK + p);
                    b0 += f * e0; b1 += f * e1; b2 += f * e2; b3 += f * e3;
                    f = LOAD(s0 + 2 * BLOCK + p);
                    c0 += f * e0; c1 += f * e1; c2 += f * e2; c3 += f * e3;
                    f = LOAD(s0 + 3 * BLOCK + p);
                    d0 += f * e0; d1 += f * e1; d2 += f * e2; d3 += f * e3;
                }
                float *g = gradient + j * inputs + i;
                g[0] += total(a0); g[1] += total(a1); g[2] += total(a2); g[3] += total(a3); g += inputs;
                g[0] += total(b0); g[1] += total(b1); g[2] += total(b2); g[3] += total(b3); g += inputs;
                g[0] += total(c0); g[1] += total(c1); g[2] += total(c2); g[3] += total(c3); g += inputs;
                g[0] += total(d0); g[1] += total(d1); g[2] += total(d2); g[3] += total(d3);
            } else {
                for (int64_t r = 0; r < rows; r++)
                    for (int64_t c = 0; c < columns; c++) {
                        vector sum = {0};
                        for (int64_t p = 0; p < points; p += LANES)
                            sum += *(const vector *)(slope + (j + r) * BLOCK + p) *
                                   *(const vector *)(in + (i + c) * BLOCK + p);
                        gradient[(j + r) * inputs + i + c] += total(sum);
                    }
            }
        }
        for (int64_t r = 0; r < rows; r++) {
            vector sum = {0};
            for (int64_t p = 0; p < points; p += LANES) sum += *(const vector *)(slope + (j + r) * BLOCK + p);
            bias[j + r] += total(sum);
        }
    }
}

/* values = sin(omega values); slopes = omega cos(omega values), if slopes is not NULL.
 * The argument is brought into [-pi/2, pi/2]; the polynomials there are exact to a few units of rounding. */
static inline void sine(float omega, float *restrict values, float *restrict slopes, int64_t count) {
    for (int64_t n = 0; n < count; n++) {
        float x = omega * values[n];
        float turns = rintf(x * 0.318309886f);
        float y = x - turns * 3.140625f; /* pi in three parts, the first two exact in few bits */
        y -= turns * 9.67502593994140625e-4f;
        y -= turns * 1.509957990978376e-7f;
        float half = 0.5f * turns;
        float sign = 1.0f - 4.0f * (half - floorf(half));
        float z = y * y;
        float s = ((((-2.3889859e-8f * z + 2.7525562e-6f) * z - 1.9840874e-4f) * z + 8.3333310e-3f) * z - 1.6666667e-1f) * z * y + y;
        values[n] = sign * s;
        if (slopes) {
            float c = ((((-2.605e-7f * z + 2.47609e-5f) * z - 1.3888378e-3f) * z + 4.16666418e-2f) * z - 0.5f) * z + 1.0f;
            slopes[n] = omega * sign * c;
        }
    }
}

/* Where the parameters of a layer begin: weight, then bias, layer after layer, as torch names them. */
static int64_t weight_at(const Shape *s, int64_t layer) {
    if (layer == 0) return 0;
    return s->width * (s->dimensions + 1) + (layer - 1) * s->width * (s->width + 1);
}

/* Passes `points` inputs, features by BLOCK, through a network; fills activations (layers x width x BLOCK), slopes
 * likewise unless NULL, and out (channels x BLOCK). */
static void forward(const Shape *s, const float *net, const float *in, float *activations, float *slopes, float *out,
                    int64_t points) {
    int64_t w = s->width, inputs = s->dimensions;
    const float *source = in;
    for (int64_t layer = 0; layer <= s->hidden; layer++) {
        const float *weight = net + weight_at(s, layer);
        float *values = activations + layer * w * BLOCK;
        multiply(w, inputs, weight, inputs, 1, weight + w * inputs, source, values, points);
        float omega = layer ? s->hidden_omega : s->first_omega;
        for (int64_t j = 0; j < w; j++)
            sine(omega, values + j * BLOCK, slopes ? slopes + (layer * w + j) * BLOCK : NULL, points);
        source = values;
        inputs = w;
    }
    const float *weight = net + weight_at(s, s->hidden + 1);
    multiply(s->channels, inputs, weight, inputs, 1, weight + s->channels * inputs, source, out, points);
}

static int64_t rounded(int64_t points) { return (points + STEP - 1) / STEP * STEP; }

/* A step of Adam for each of `count` networks, `rows` of `parameters`, on points of their own.
 *   inputs: (count or 1, points, dimensions); shared says which
 *   targets: (count, points, channels); weights: (count, points) factors on the squared errors, or NULL
 *   parameters, first, second: (all, size) weights and Adam's moments; rates: (count) with the bias corrections in them
 *   losses: (count) weighted mean squared errors before the step
 *   errors: (count, points, channels) outputs less targets before the step, or NULL
 *   gradients: (count, size) of the losses; then no step is taken, and what belongs to Adam is not read. Or NULL.
 * Returns 0, or 1 if there is no memory. */
int train(const Shape *s, int64_t count, const int64_t *rows, int64_t points, const float *inputs, int shared,
          const float *targets, const float *weights, float *parameters, float *first, float *second,
          const float *rates, const float *corrections, float beta1, float beta2, float epsilon, float *losses,
          float *errors, float *gradients) {
    int64_t d = s->dimensions, c = s->channels, w = s->width, layers = s->hidden + 1;
    int64_t size = weight_at(s, layers) + c * (w + 1), wide = w > c ? w : c;
    float *scratch = calloc((size_t)(size + BLOCK * (d + 2 * layers * w + c + 2 * wide)), sizeof(float));
    if (!scratch) return 1;
    float *gradient = scratch, *in = gradient + size, *activations = in + d * BLOCK;
    float *slopes = activations + layers * w * BLOCK, *out = slopes + layers * w * BLOCK;
    float *back = out + c * BLOCK, *other = back + wide * BLOCK;
    for (int64_t n = 0; n < count; n++) {
        float *net = parameters + rows[n] * size;
        double loss = 0;
        memset(gradient, 0, (size_t)size * sizeof(float));
        for (int64_t start = 0; start < points; start += BLOCK) {
            int64_t here = points - start < BLOCK ? points - start : BLOCK, padded = rounded(here);
            const float *x = inputs + (shared ? start : n * points + start) * d;
            const float *y = targets + (n * points + start) * c;
            for (int64_t i = 0; i < d; i++) {
                for (int64_t p = 0; p < here; p++) in[i * BLOCK + p] = x[p * d + i];
                for (int64_t p = here; p < padded; p++) in[i * BLOCK + p] = 0;
            }
            forward(s, net, in, activations, slopes, out, padded);
            float scale = 2.0f / (float)(points * c);
            for (int64_t i = 0; i < c; i++) {
                float sum = 0;
                for (int64_t p = 0; p < here; p++) {
                    float error = out[i * BLOCK + p] - y[p * c + i];
                    float factor = weights ? weights[n * points + start + p] : 1.0f;
                    sum += factor * error * error;
                    if (errors) errors[(n * points + start + p) * c + i] = error;
                    out[i * BLOCK + p] = scale * factor * error;
                }
                for (int64_t p = here; p < padded; p++) out[i * BLOCK + p] = 0;
                loss += sum;
            }
            float *slope = out, *next = back;
            int64_t outputs = c;
            for (int64_t layer = layers; layer >= 0; layer--) {
                int64_t inputs_here = layer ? w : d, at = weight_at(s, layer);
                const float *source = layer ? activations + (layer - 1) * w * BLOCK : in;
                correlate(outputs, inputs_here, slope, source, gradient + at, gradient + at + outputs * inputs_here,
                          padded);
                if (!layer) break;
                multiply(w, outputs, net + at, 1, w, NULL, slope, next, padded);
                const float *factor = slopes + (layer - 1) * w * BLOCK;
                for (int64_t j = 0; j < w; j++)
                    for (int64_t p = 0; p < padded; p++) next[j * BLOCK + p] *= factor[j * BLOCK + p];
                slope = next;
                next = next == back ? other : back;
                outputs = w;
            }
        }
        losses[n] = (float)(loss / (double)(points * c));
        if (gradients) {
            memcpy(gradients + n * size, gradient, (size_t)size * sizeof(float));
            continue;
        }
        float *m = first + rows[n] * size, *v = second + rows[n] * size, rate = rates[n], correction = corrections[n];
        for (int64_t i = 0; i < size; i++) {
            float g = gradient[i];
            m[i] += (1 - beta1) * (g - m[i]);
            v[i] = beta2 * v[i] + (1 - beta2) * g * g;
            net[i] -= rate * m[i] / (sqrtf(v[i]) * correction + epsilon);
        }
    }
    free(scratch);
    return 0;
}

/* Passes the `here` points that `pick` lists, of d numbers each, through a network. */
static void pass(const Shape *s, const float *net, const float *points, const int32_t *pick, int64_t here, float *in,
                 float *activations, float *out) {
    int64_t d = s->dimensions, padded = rounded(here);
    for (int64_t i = 0; i < d; i++) {
        for (int64_t p = 0; p < here; p++) in[i * BLOCK + p] = points[pick[p] * d + i];
        for (int64_t p = here; p < padded; p++) in[i * BLOCK + p] = 0;
    }
    forward(s, net, in, activations, NULL, out, padded);
}

#define AXES 8      /* most dimensions of a tiling */
#define PIECE 8192  /* points that are sorted into tiles at a time */

typedef struct {
    int64_t lattice[AXES], counts[AXES], sides[AXES], firsts[AXES], shape[AXES];
    double overlaps[AXES], scale;
} Tiling;

static int64_t floor_divided(int64_t a, int64_t b) { return a / b - (a % b < 0); }

/* Values of a field of tiles: each point's are those of the tiles around it, blended.
 *   coordinates: (points, dimensions) in [-1, 1]; slots: a tile's row of `parameters`, or -1; networks: how many rows
 *   means: (tiles, channels), spreads: (tiles); values: (points, channels)
 * Tiles are those of a window: along each axis `shape` of them, from `firsts` on.
 * Returns 0, or 1 if there is no memory. */
int blend(const Shape *s, const Tiling *t, int64_t points, const double *coordinates, const int64_t *slots,
          const float *means, const float *spreads, const float *parameters, int64_t networks, float *values) {
    int64_t d = s->dimensions, c = s->channels, w = s->width, layers = s->hidden + 1, most = PIECE << d;
    int64_t size = weight_at(s, layers) + c * (w + 1);
    float *in = calloc((size_t)(BLOCK * (d + layers * w + c)), sizeof(float));
    float *local = malloc((size_t)(most * (d + c + 1)) * sizeof(float));
    int32_t *pairs = malloc((size_t)(5 * most) * sizeof(int32_t));
    int32_t *found = calloc((size_t)networks + 1, sizeof(int32_t)); /* place in `begins` + 1 of a network of this piece */
    if (!in || !local || !pairs || !found) {
        free(in), free(local), free(pairs), free(found);
        return 1;
    }
    float *activations = in + d * BLOCK, *out = activations + layers * w * BLOCK;
    float *result = local + most * d, *factor = result + most * c;
    int32_t *slot = pairs, *order = slot + most, *met = order + most, *begins = met + most,
            *firsts = begins + most;
    for (int64_t start = 0; start < points; start += PIECE) {
        int64_t here = points - start < PIECE ? points - start : PIECE, total = 0, kinds = 0;
        for (int64_t p = 0; p < here; p++) {
            int64_t tile[AXES][2];
            double weight[AXES][2], offset[AXES][2];
            float *value = values + (start + p) * c;
            for (int64_t i = 0; i < c; i++) value[i] = 0;
            for (int64_t a = 0; a < d; a++) {
                int64_t length = t->lattice[a], count = t->counts[a];
                double x = (coordinates[(start + p) * d + a] + 1) * (0.5 * (double)length);
                double whole = floor(x < 0 ? 0 : x);
                int64_t cell = whole > (double)(length - 1) ? length - 1 : (int64_t)whole;
                int64_t first = t->firsts[a], last = first + t->shape[a] - 1;
                int64_t near = floor_divided((cell + 1) * count - 1, length);
                near = near < first ? first : near > last ? last : near;
                int64_t low = floor_divided(near * length, count), high = floor_divided((near + 1) * length, count);
                double before = x - (double)low, after = (double)high - x;
                int64_t other = before < after ? near - 1 : near + 1;
                double share = 0, overlap = t->overlaps[a];
                if (count > 1 && overlap > 0 && other >= first && other <= last) {
                    double reach = (1 - (before < after ? before : after) / overlap) / 2;
                    if (reach > 0) {
                        reach = reach > 0.5 ? 0.5 : reach;
                        share = reach * reach * reach * (reach * (reach * 6 - 15) + 10);
                    }
                }
                double middle = 0.5 * (double)t->sides[a];
                tile[a][0] = near, weight[a][0] = 1 - share, offset[a][0] = (before - middle) / t->scale;
                tile[a][1] = other, weight[a][1] = share;
                offset[a][1] = (x - (double)floor_divided(other * length, count) - middle) / t->scale;
            }
            for (int64_t choice = 0; choice < (int64_t)1 << d; choice++) {
                double product = 1;
                int64_t number = 0;
                for (int64_t a = 0; a < d; a++) {
                    int64_t side = choice >> (d - 1 - a) & 1;
                    product *= weight[a][side];
                    number = number * t->shape[a] + tile[a][side] - t->firsts[a];
                }
                if (product <= 0) continue;
                for (int64_t i = 0; i < c; i++) value[i] += (float)product * means[number * c + i];
                if (slots[number] < 0) continue;
                for (int64_t a = 0; a < d; a++) local[total * d + a] = (float)offset[a][choice >> (d - 1 - a) & 1];
                factor[total] = (float)product * spreads[number];
                slot[total] = (int32_t)slots[number];
                met[total] = (int32_t)p;
                if (!found[slot[total]]) {
                    firsts[kinds] = slot[total];
                    begins[kinds] = 0;
                    found[slot[total]] = (int32_t)++kinds;
                }
                begins[found[slot[total]] - 1]++;
                total++;
            }
        }
        int32_t sum = 0;
        for (int64_t k = 0; k < kinds; k++) {
            int32_t many = begins[k];
            begins[k] = sum;
            sum += many;
        }
        for (int64_t pair = 0; pair < total; pair++) order[begins[found[slot[pair]] - 1]++] = (int32_t)pair;
        for (int64_t k = 0, first = 0; k < kinds; first = begins[k++]) {
            for (int64_t at = first; at < begins[k]; at += BLOCK) {
                int64_t many = begins[k] - at < BLOCK ? begins[k] - at : BLOCK;
                pass(s, parameters + firsts[k] * size, local, order + at, many, in, activations, out);
                for (int64_t i = 0; i < c; i++)
                    for (int64_t p = 0; p < many; p++) result[order[at + p] * c + i] = out[i * BLOCK + p];
            }
            found[firsts[k]] = 0;
        }
        for (int64_t pair = 0; pair < total; pair++)
            for (int64_t i = 0; i < c; i++)
                values[(start + met[pair]) * c + i] += factor[pair] * result[pair * c + i];
    }
    free(in), free(local), free(pairs), free(found);
    return 0;
}
