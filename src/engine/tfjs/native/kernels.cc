// Fused CPU kernels for TensorFlow's eager runtime: each does in one pass over memory what a chain of TensorFlow operations does in three to fourteen.
// The formulas are those of src/engine/engine.ts; the conformance suite holds both engines to them.
//
// Written against TensorFlow's C API for kernels (tensorflow/c/kernels.h), which any wheel has. Loading the library registers the operations.
// Sums run over blocks of fixed size that are added in order: the result does not depend on the number of threads.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include <node_api.h>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/ops.h"
#include "tensorflow/c/tf_status.h"
#include "tensorflow/c/tf_tensor.h"

namespace {

// ---- threads --------------------------------------------------------------------------------------------------------------------

/** Elements of a block: 64 KiB of floats, so that a block's inputs and outputs stay in the second-level cache. */
constexpr int64_t BLOCK = 16384;

/** Workers that sleep between calls. Never destroyed: they wait until the process ends. */
class Pool {
 public:
  static Pool& get() {
    static Pool* pool = new Pool();
    return *pool;
  }

  /** Runs fn(0) … fn(blocks − 1), in any order, on the calling thread and the workers. */
  void run(int64_t blocks, const std::function<void(int64_t)>& fn) {
    std::unique_lock<std::mutex> turn(turn_, std::try_to_lock);
    if (blocks < 2 || workers_ == 0 || !turn.owns_lock()) {
      for (int64_t b = 0; b < blocks; b++) fn(b);
      return;
    }
    {
      std::lock_guard<std::mutex> lock(mutex_);
      fn_ = &fn;
      blocks_ = blocks;
      next_ = 0;
      running_ = workers_;
      generation_++;
    }
    wake_.notify_all();
    for (int64_t b = next_++; b < blocks; b = next_++) fn(b);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [&] { return running_ == 0; });
  }

 private:
  Pool() {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    workers_ = std::min(std::max(cores - 1, 0), 31);
    for (int i = 0; i < workers_; i++) std::thread([this] { work(); }).detach();
  }

  void work() {
    uint64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_ != seen; });
        seen = generation_;
      }
      for (int64_t b = next_++; b < blocks_; b = next_++) (*fn_)(b);
      std::lock_guard<std::mutex> lock(mutex_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex turn_, mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(int64_t)>* fn_ = nullptr;
  std::atomic<int64_t> next_{0};
  int64_t blocks_ = 0;
  uint64_t generation_ = 0;
  int workers_ = 0, running_ = 0;
};

int64_t blocksOf(int64_t n, int64_t block) { return (n + block - 1) / block; }

/** fn(begin, end) over [0, n) in blocks. */
template <class F>
void overRange(int64_t n, int64_t block, F fn) {
  Pool::get().run(blocksOf(n, block), [&](int64_t b) { fn(b * block, std::min(n, (b + 1) * block)); });
}

/** Rows of length `width` that make up about a block. */
int64_t rowBlock(int64_t width) { return std::max<int64_t>(1, BLOCK / std::max<int64_t>(1, width)); }

// ---- calls ----------------------------------------------------------------------------------------------------------------------

/** One call of a kernel: its inputs, its outputs. */
class Call {
 public:
  explicit Call(TF_OpKernelContext* ctx) : ctx_(ctx), status_(TF_NewStatus()) {
    for (int i = 0; i < TF_NumInputs(ctx); i++) {
      TF_Tensor* t = nullptr;
      TF_GetInput(ctx, i, &t, status_);
      in_.push_back(t);
    }
  }
  ~Call() {
    for (TF_Tensor* t : in_)
      if (t) TF_DeleteTensor(t);
    for (TF_Tensor* t : out_) TF_DeleteTensor(t);
    TF_DeleteStatus(status_);
  }
  Call(const Call&) = delete;

  /** The values of an input. Not constant: the optimizer updates its state in place. */
  template <class T = float>
  T* in(int i) const { return static_cast<T*>(TF_TensorData(in_[i])); }
  int64_t size(int i) const { return TF_TensorElementCount(in_[i]); }
  std::vector<int64_t> shape(int i) const {
    std::vector<int64_t> dims(TF_NumDims(in_[i]));
    for (size_t d = 0; d < dims.size(); d++) dims[d] = TF_Dim(in_[i], static_cast<int>(d));
    return dims;
  }
  /** Length of the last dimension. */
  int64_t width(int i) const { return TF_NumDims(in_[i]) == 0 ? 1 : TF_Dim(in_[i], TF_NumDims(in_[i]) - 1); }
  /** The int32 values of an input as a shape. */
  std::vector<int64_t> shapeFrom(int i) const { return std::vector<int64_t>(in<int32_t>(i), in<int32_t>(i) + size(i)); }

  template <class T = float>
  T* out(int index, const std::vector<int64_t>& dims) {
    int64_t n = 1;
    for (int64_t d : dims) n *= d;
    const TF_DataType type = std::is_same<T, float>::value ? TF_FLOAT : TF_INT32;
    TF_Tensor* t = TF_AllocateOutput(ctx_, index, type, dims.data(), static_cast<int>(dims.size()), n * sizeof(T), status_);
    if (TF_GetCode(status_) != TF_OK) {
      TF_OpKernelContext_Failure(ctx_, status_);
      return nullptr;
    }
    out_.push_back(t);
    return static_cast<T*>(TF_TensorData(t));
  }

 private:
  TF_OpKernelContext* ctx_;
  TF_Status* status_;
  std::vector<TF_Tensor*> in_, out_;
};

// ---- elementary functions, written so that the compiler turns loops over them into vector instructions --------------------------------

/** eˣ for x ≤ 88 to about 1e-7 relative, 0 below −87: 2ⁿ·eʳ with r = x − n·ln 2, eʳ by its Taylor polynomial on abs(r) ≤ 0.347. NaN stays NaN. */
inline float expFast(float given) {
  const float x = given < -87.0f ? -87.0f : given > 88.0f ? 88.0f : given;
  const float n = std::rint(x * 1.44269504f);
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r + 1.0f;
  const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return given < -87.0f ? 0.0f : p * scale;
}

/**
 * Φ(x), the normal distribution function: for x ≤ 0 half of erfc(−x/√2) = t·exp(−x²/2 + polynomial in t), t = 1/(1 + 0.5·z), by the Chebyshev fit of Numerical
 * Recipes (erfcc), relative error below 1.2e-7; for x > 0 one minus that.
 */
inline float normalCdf(float x) {
  const float z = std::fabs(x) * 0.70710678f;
  const float t = 1.0f / (1.0f + 0.5f * z);
  float p = 0.17087277f;
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  const float tail = 0.5f * t * expFast(p - z * z);
  return x < 0 ? tail : 1.0f - tail;
}

inline float geluSlope(float x) { return normalCdf(x) + x * 0.39894228f * expFast(-0.5f * x * x); }

// ---- element-wise ---------------------------------------------------------------------------------------------------------------------

void gelu(Call& c) {
  const float* x = c.in(0);
  float* y = c.out(0, c.shape(0));
  if (!y) return;
  overRange(c.size(0), BLOCK, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = x[i] * normalCdf(x[i]);
  });
}

void geluGrad(Call& c) {
  const float *g = c.in(0), *x = c.in(1);
  float* y = c.out(0, c.shape(0));
  if (!y) return;
  overRange(c.size(0), BLOCK, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = g[i] * geluSlope(x[i]);
  });
}

/** From 4-bit codes: the derivative has 16 possible values. Inputs: gradient, words. */
void geluGradCoded(Call& c) {
  const float* g = c.in(0);
  const uint8_t* codes = c.in<uint8_t>(1);
  float* y = c.out(0, c.shape(0));
  if (!y) return;
  const int64_t n = c.size(0), half = (n + 1) / 2;
  float table[16];
  for (int i = 0; i < 16; i++) {
    const double x = (i - 8) / 2.0;
    table[i] = static_cast<float>(0.5 * std::erfc(-x / std::sqrt(2.0)) + x * std::exp(-0.5 * x * x) / std::sqrt(2 * 3.14159265358979323846));
  }
  overRange(half, BLOCK, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = g[i] * table[codes[i] >> 4];
    for (int64_t i = begin; i < std::min(end, n - half); i++) y[half + i] = g[half + i] * table[codes[i] & 15];
  });
}

/** pcg3d as in src/engine/randomBits.ts. Inputs: x, [seed, counter, threshold, position of the first element (else 0)], scale. Kept where the random bits reach the threshold. */
void dropout(Call& c) {
  const float* x = c.in(0);
  const uint32_t* key = c.in<uint32_t>(1);
  const uint32_t a0 = key[0] * 1664525u + 1013904223u, b0 = key[1] * 1664525u + 1013904223u, threshold = key[2], offset = c.size(1) > 3 ? key[3] : 0;
  const float scale = *c.in(2);
  float* y = c.out(0, c.shape(0));
  if (!y) return;
  overRange(c.size(0), BLOCK, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      uint32_t z = (offset + static_cast<uint32_t>(i)) * 1664525u + 1013904223u;
      uint32_t a = a0 + b0 * z;
      uint32_t b = b0 + z * a;
      z += a * b;
      a ^= a >> 16;
      b ^= b >> 16;
      z ^= z >> 16;
      y[i] = x[i] * (a + b * z >= threshold ? scale : 0.0f);
    }
  });
}

// ---- rows -----------------------------------------------------------------------------------------------------------------------------

inline float rowSum(const float* x, int64_t n) {
  float s = 0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += x[i];
  return s;
}

/** Mean and 1/sqrt(var + eps) of a row. */
inline void statsOf(const float* x, int64_t n, float eps, float* mean, float* rstd) {
  const float m = rowSum(x, n) / n;
  float s = 0;
#pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += (x[i] - m) * (x[i] - m);
  *mean = m;
  *rstd = 1.0f / std::sqrt(s / n + eps);
}

/** Inputs: x, weight, bias, eps. */
void layerNorm(Call& c) {
  const float *x = c.in(0), *w = c.in(1), *b = c.in(2);
  const float eps = *c.in(3);
  const int64_t H = c.width(0);
  float* y = c.out(0, c.shape(0));
  if (!y) return;
  overRange(c.size(0) / H, rowBlock(H), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      float mean, rstd;
      statsOf(x + r * H, H, eps, &mean, &rstd);
      for (int64_t i = 0; i < H; i++) y[r * H + i] = (x[r * H + i] - mean) * rstd * w[i] + b[i];
    }
  });
}

/** Inputs: x, eps. Outputs: mean, 1/std, each [N, 1]. */
void rowStats(Call& c) {
  const float* x = c.in(0);
  const float eps = *c.in(1);
  const int64_t H = c.width(0), N = c.size(0) / H;
  float* mean = c.out(0, {N, 1});
  float* rstd = c.out(1, {N, 1});
  if (!mean || !rstd) return;
  overRange(N, rowBlock(H), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) statsOf(x + r * H, H, eps, mean + r, rstd + r);
  });
}

/** Inputs: x, mean, 1/std. */
void normalize(Call& c) {
  const float *x = c.in(0), *mean = c.in(1), *rstd = c.in(2);
  const int64_t H = c.width(0);
  float* y = c.out(0, c.shape(0));
  if (!y) return;
  overRange(c.size(0) / H, rowBlock(H), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++)
      for (int64_t i = 0; i < H; i++) y[r * H + i] = (x[r * H + i] - mean[r]) * rstd[r];
  });
}

/** y ← y + bias, in place: y is the product just made, which nothing else looks at. Inputs: y, bias. */
void addBias(Call& c) {
  float* y = c.in(0);
  const float* bias = c.in(1);
  const int64_t O = c.width(0);
  overRange(c.size(0) / O, rowBlock(O), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++)
      for (int64_t i = 0; i < O; i++) y[r * O + i] += bias[i];
  });
}

/** Inputs: gradient, normalised values, 1/std, weight. */
void layerNormGrad(Call& c) {
  const float *g = c.in(0), *y = c.in(1), *rstd = c.in(2), *w = c.in(3);
  const int64_t H = c.width(0);
  float* dx = c.out(0, c.shape(0));
  if (!dx) return;
  overRange(c.size(0) / H, rowBlock(H), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float *gr = g + r * H, *yr = y + r * H;
      float sum = 0, along = 0;
#pragma omp simd reduction(+ : sum, along)
      for (int64_t i = 0; i < H; i++) {
        const float h = gr[i] * w[i];
        sum += h;
        along += h * yr[i];
      }
      sum /= H;
      along /= H;
      for (int64_t i = 0; i < H; i++) dx[r * H + i] = rstd[r] * (gr[i] * w[i] - sum - along * yr[i]);
    }
  });
}

/** Σ over rows of x, or of x·y. */
void columnSum(Call& c, const float* x, const float* y, int64_t H) {
  const int64_t N = c.size(0) / H, step = 64, blocks = blocksOf(N, step);
  float* out = c.out(0, {H});
  if (!out) return;
  std::vector<float> parts(blocks * H, 0.0f);
  overRange(N, step, [&](int64_t begin, int64_t end) {
    float* part = parts.data() + begin / step * H;
    for (int64_t r = begin; r < end; r++)
      if (y)
        for (int64_t i = 0; i < H; i++) part[i] += x[r * H + i] * y[r * H + i];
      else
        for (int64_t i = 0; i < H; i++) part[i] += x[r * H + i];
  });
  std::memset(out, 0, H * sizeof(float));
  for (int64_t b = 0; b < blocks; b++)
    for (int64_t i = 0; i < H; i++) out[i] += parts[b * H + i];
}
void biasGrad(Call& c) { columnSum(c, c.in(0), nullptr, c.width(0)); }
void layerNormGradWeight(Call& c) { columnSum(c, c.in(0), c.in(1), c.width(0)); }

/** softmax(x·scale + mask). Inputs: x [B, ..., T], mask with B·T elements or none, scale. */
void softmax(Call& c) {
  const float *x = c.in(0), *mask = c.size(1) > 0 ? c.in(1) : nullptr;
  const float scale = *c.in(2);
  const int64_t T = c.width(0), N = c.size(0) / T;
  const int64_t rowsPerMask = mask ? N / (c.size(1) / T) : N;
  float* y = c.out(0, c.shape(0));
  if (!y) return;
  overRange(N, rowBlock(T), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float* xr = x + r * T;
      float* yr = y + r * T;
      if (mask) {
        const float* m = mask + r / rowsPerMask * T;
        for (int64_t i = 0; i < T; i++) yr[i] = xr[i] * scale + m[i];
      } else {
        for (int64_t i = 0; i < T; i++) yr[i] = xr[i] * scale;
      }
      float top = yr[0];
#pragma omp simd reduction(max : top)
      for (int64_t i = 0; i < T; i++) top = yr[i] > top ? yr[i] : top;
      float sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < T; i++) {
        yr[i] = expFast(yr[i] - top);
        sum += yr[i];
      }
      const float inverse = 1.0f / sum;
      for (int64_t i = 0; i < T; i++) yr[i] *= inverse;
    }
  });
}

/** p∘(g − rowsum(g∘p)). Inputs: gradient, probabilities. */
void softmaxGrad(Call& c) {
  const float *g = c.in(0), *p = c.in(1);
  const int64_t T = c.width(0);
  float* y = c.out(0, c.shape(0));
  if (!y) return;
  overRange(c.size(0) / T, rowBlock(T), [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float *gr = g + r * T, *pr = p + r * T;
      float along = 0;
#pragma omp simd reduction(+ : along)
      for (int64_t i = 0; i < T; i++) along += gr[i] * pr[i];
      for (int64_t i = 0; i < T; i++) y[r * T + i] = pr[i] * (gr[i] - along);
    }
  });
}

// ---- encodings ------------------------------------------------------------------------------------------------------------------------

/** Rounds half to even, then clamps. */
inline int32_t codeOf(float x, float scale, float lo, float hi) {
  float v = std::rint(x * scale);
  v = v < lo ? lo : v;
  v = v > hi ? hi : v;
  return static_cast<int32_t>(v);
}

/** A byte an element. Inputs: x, [scale, lo, hi]. Output: words. */
void encode8(Call& c) {
  const float *x = c.in(0), scale = c.in(1)[0], lo = c.in(1)[1], hi = c.in(1)[2];
  const int64_t n = c.size(0), words = (n + 3) / 4;
  uint8_t* codes = reinterpret_cast<uint8_t*>(c.out<int32_t>(0, {words}));
  if (!codes) return;
  overRange(n, BLOCK, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) codes[i] = static_cast<uint8_t>(codeOf(x[i], scale, lo, hi));
  });
  std::memset(codes + n, 0, words * 4 - n);
}

/** Two elements a byte: the first half in the high nibbles. Inputs as encode8. */
void encode4(Call& c) {
  const float *x = c.in(0), scale = c.in(1)[0], lo = c.in(1)[1], hi = c.in(1)[2];
  const int64_t n = c.size(0), half = (n + 1) / 2, words = (half + 3) / 4;
  uint8_t* codes = reinterpret_cast<uint8_t*>(c.out<int32_t>(0, {words}));
  if (!codes) return;
  overRange(half, BLOCK, [=](int64_t begin, int64_t end) {
    const int64_t both = std::min(end, n - half);
    for (int64_t i = begin; i < both; i++) codes[i] = static_cast<uint8_t>((codeOf(x[i], scale, lo, hi) + 8) * 16 + codeOf(x[half + i], scale, lo, hi) + 8);
    for (int64_t i = both; i < end; i++) codes[i] = static_cast<uint8_t>((codeOf(x[i], scale, lo, hi) + 8) * 16);
  });
  std::memset(codes + half, 0, words * 4 - half);
}

/** Inputs: words, shape, 1/scale. `Code` is the type of a byte. */
template <class Code>
void decode8(Call& c) {
  const Code* codes = c.in<Code>(0);
  const float step = *c.in(2);
  const std::vector<int64_t> shape = c.shapeFrom(1);
  float* y = c.out(0, shape);
  if (!y) return;
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  overRange(n, BLOCK, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = static_cast<float>(codes[i]) * step;
  });
}

/** Inputs: words, shape, 1/scale. */
void decode4(Call& c) {
  const uint8_t* codes = c.in<uint8_t>(0);
  const float step = *c.in(2);
  const std::vector<int64_t> shape = c.shapeFrom(1);
  float* y = c.out(0, shape);
  if (!y) return;
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  const int64_t half = (n + 1) / 2;
  overRange(half, BLOCK, [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) y[i] = static_cast<float>((codes[i] >> 4) - 8) * step;
    for (int64_t i = begin; i < std::min(end, n - half); i++) y[half + i] = static_cast<float>((codes[i] & 15) - 8) * step;
  });
}

/**
 * The `count` elements of largest absolute value: the threshold by a histogram over the upper bits and a selection within one bin, then one pass in order.
 * Inputs: x, count. Outputs: values, indices.
 */
void topK(Call& c) {
  const uint32_t* bits = c.in<uint32_t>(0);
  const int64_t n = c.size(0), count = *c.in<int32_t>(1), blocks = blocksOf(n, BLOCK);
  float* values = c.out(0, {count});
  int32_t* indices = c.out<int32_t>(1, {count});
  if (!values || !indices || count == 0) return;
  constexpr int BINS = 2048, SHIFT = 20;
  constexpr uint32_t MAGNITUDE = 0x7fffffffu;
  // Of floats without their sign, the bits order as the values do.
  std::vector<int32_t> histograms(blocks * BINS, 0);
  overRange(n, BLOCK, [&](int64_t begin, int64_t end) {
    int32_t* histogram = histograms.data() + begin / BLOCK * BINS;
    for (int64_t i = begin; i < end; i++) histogram[(bits[i] & MAGNITUDE) >> SHIFT]++;
  });
  int64_t above = 0;
  int bin = BINS - 1;
  for (;; bin--) {
    int64_t here = 0;
    for (int64_t b = 0; b < blocks; b++) here += histograms[b * BINS + bin];
    if (above + here >= count) break;
    above += here;
  }
  const auto magnitude = [bits](int64_t i) { return bits[i] & MAGNITUDE; };
  std::vector<std::vector<uint32_t>> found(blocks);
  overRange(n, BLOCK, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++)
      if (magnitude(i) >> SHIFT == static_cast<uint32_t>(bin)) found[begin / BLOCK].push_back(magnitude(i));
  });
  std::vector<uint32_t> candidates;
  for (const auto& f : found) candidates.insert(candidates.end(), f.begin(), f.end());
  const int64_t rank = count - above - 1;
  std::nth_element(candidates.begin(), candidates.begin() + rank, candidates.end(), std::greater<uint32_t>());
  const uint32_t threshold = candidates[rank];
  // How many each block gives decides where it writes; elements at the threshold fill up from the front.
  struct Share {
    int64_t larger = 0, equal = 0, at = 0;
  };
  std::vector<Share> shares(blocks);
  overRange(n, BLOCK, [&](int64_t begin, int64_t end) {
    int64_t larger = 0, equal = 0;
    for (int64_t i = begin; i < end; i++) {
      larger += magnitude(i) > threshold;
      equal += magnitude(i) == threshold;
    }
    shares[begin / BLOCK] = {larger, equal, 0};
  });
  int64_t ties = count;
  for (const Share& s : shares) ties -= s.larger;
  int64_t at = 0;
  for (Share& s : shares) {
    s.equal = std::min(s.equal, ties);
    ties -= s.equal;
    s.at = at;
    at += s.larger + s.equal;
  }
  const float* x = c.in(0);
  overRange(n, BLOCK, [&](int64_t begin, int64_t end) {
    Share s = shares[begin / BLOCK];
    for (int64_t i = begin; i < end; i++) {
      const uint32_t v = magnitude(i);
      if (v < threshold || (v == threshold && s.equal-- <= 0)) continue;
      values[s.at] = x[i];
      indices[s.at++] = static_cast<int32_t>(i);
    }
  });
}

/** Inputs: values, indices (each once), shape. */
void densify(Call& c) {
  const float* values = c.in(0);
  const int32_t* indices = c.in<int32_t>(1);
  const std::vector<int64_t> shape = c.shapeFrom(2);
  float* y = c.out(0, shape);
  if (!y) return;
  int64_t n = 1;
  for (int64_t d : shape) n *= d;
  std::memset(y, 0, n * sizeof(float));
  for (int64_t i = 0; i < c.size(0); i++) y[indices[i]] = values[i];
}

/** table[ids[i]] = rows[i], in place: nothing else looks at the table, ids are distinct. Elements are of 4 bytes. Inputs: table, ids, rows. */
void writeRows(Call& c) {
  char* table = c.in<char>(0);
  const int32_t* ids = c.in<int32_t>(1);
  const char* rows = c.in<char>(2);
  const int64_t n = c.size(1);
  if (n == 0) return;
  const int64_t bytes = c.size(2) / n * 4;
  for (int64_t i = 0; i < n; i++) std::memcpy(table + ids[i] * bytes, rows + i * bytes, bytes);
}

// ---- optimizer ------------------------------------------------------------------------------------------------------------------------

/**
 * One AdamW step, in place: the caller sees to it that nothing else looks at weight and moments. Inputs: weight, m, v, gradient, [rate, beta1, 1 − beta1, beta2, 1 − beta2, eps, lr·decay, measure].
 * Output: the update magnitude; measure 0: mean(abs((before − after)/before)), 1: ‖before − after‖/‖before‖, at most 1, as the engine contract says it.
 */
/** What comes out of an update beside it, in the order of UPDATE_MAGNITUDES (engine.ts). */
enum Magnitude { MEAN_RELATIVE, RELATIVE_L2, LOSS_CHANGE };

template <Magnitude OF>
void adamWStep(Call& c) {
  float *w = c.in(0), *m = c.in(1), *v = c.in(2);
  const float *g = c.in(3), *o = c.in(4);
  const float rate = o[0], beta1 = o[1], rest1 = o[2], beta2 = o[3], rest2 = o[4], eps = o[5], decay = o[6];
  float* magnitude = c.out(0, {});
  if (!magnitude) return;
  const int64_t n = c.size(0);
  std::vector<double> parts(blocksOf(n, BLOCK), 0.0), squares(OF == RELATIVE_L2 ? blocksOf(n, BLOCK) : 0, 0.0);
  overRange(n, BLOCK, [&](int64_t begin, int64_t end) {
    double sum = 0, square = 0;
    // The running sums are in float32 over 512 elements only.
    for (int64_t from = begin; from < end; from += 512) {
      const int64_t to = std::min(end, from + 512);
      float s = 0, q = 0;
#pragma omp simd reduction(+ : s, q)
      for (int64_t i = from; i < to; i++) {
        const float m1 = m[i] * beta1 + g[i] * rest1;
        const float v1 = v[i] * beta2 + g[i] * g[i] * rest2;
        const float stepped = w[i] - rate * (m1 / (std::sqrt(v1) + eps));
        const float w1 = stepped - stepped * decay;
        if (OF == RELATIVE_L2) {
          s += (w[i] - w1) * (w[i] - w1);
          q += w[i] * w[i];
        } else if (OF == LOSS_CHANGE) {
          s += (w[i] - w1) * g[i];
        } else {
          s += std::fabs((w[i] - w1) / w[i]);
        }
        m[i] = m1;
        v[i] = v1;
        w[i] = w1;
      }
      sum += s;
      square += q;
    }
    parts[begin / BLOCK] = sum;
    if (OF == RELATIVE_L2) squares[begin / BLOCK] = square;
  });
  double total = 0, weight = 0;
  for (double part : parts) total += part;
  for (double part : squares) weight += part;
  // What did not move, 0; what moved further than it was long, 1. NaN stays NaN.
  *magnitude = static_cast<float>(OF == MEAN_RELATIVE ? total / n : OF == LOSS_CHANGE ? std::fabs(total) : total == 0 ? 0 : std::sqrt(total / (total > weight ? total : weight)));
}

void adamW(Call& c) {
  const float of = c.in(4)[7];
  if (of == MEAN_RELATIVE) adamWStep<MEAN_RELATIVE>(c);
  else if (of == RELATIVE_L2) adamWStep<RELATIVE_L2>(c);
  else adamWStep<LOSS_CHANGE>(c);
}

// ---- registration ---------------------------------------------------------------------------------------------------------------------

template <void (*F)(Call&)>
void compute(void*, TF_OpKernelContext* ctx) {
  Call call(ctx);
  F(call);
}

bool registered = true;

template <void (*F)(Call&)>
void define(const char* name, std::initializer_list<const char*> inputs, std::initializer_list<const char*> outputs) {
  TF_Status* status = TF_NewStatus();
  TF_OpDefinitionBuilder* op = TF_NewOpDefinitionBuilder(name);
  for (const char* i : inputs) TF_OpDefinitionBuilderAddInput(op, i);
  for (const char* o : outputs) TF_OpDefinitionBuilderAddOutput(op, o);
  TF_RegisterOpDefinition(op, status);
  registered = registered && TF_GetCode(status) == TF_OK;
  TF_RegisterKernelBuilder(name, TF_NewKernelBuilder(name, "CPU", nullptr, compute<F>, nullptr), status);
  registered = registered && TF_GetCode(status) == TF_OK;
  TF_DeleteStatus(status);
}

void defineAll() {
  define<gelu>("SlimfitGelu", {"x: float"}, {"y: float"});
  define<geluGrad>("SlimfitGeluGrad", {"grad: float", "x: float"}, {"y: float"});
  define<geluGradCoded>("SlimfitGeluGradCoded", {"grad: float", "words: int32"}, {"y: float"});
  define<dropout>("SlimfitDropout", {"x: float", "key: int32", "scale: float"}, {"y: float"});
  define<addBias>("SlimfitAddBias", {"y: float", "bias: float"}, {});
  define<layerNorm>("SlimfitLayerNorm", {"x: float", "weight: float", "bias: float", "eps: float"}, {"y: float"});
  define<rowStats>("SlimfitRowStats", {"x: float", "eps: float"}, {"mean: float", "rstd: float"});
  define<normalize>("SlimfitNormalize", {"x: float", "mean: float", "rstd: float"}, {"y: float"});
  define<layerNormGrad>("SlimfitLayerNormGrad", {"grad: float", "y: float", "rstd: float", "weight: float"}, {"dx: float"});
  define<layerNormGradWeight>("SlimfitLayerNormGradWeight", {"grad: float", "y: float"}, {"dw: float"});
  define<biasGrad>("SlimfitBiasGrad", {"grad: float"}, {"db: float"});
  define<softmax>("SlimfitSoftmax", {"x: float", "mask: float", "scale: float"}, {"y: float"});
  define<softmaxGrad>("SlimfitSoftmaxGrad", {"grad: float", "probs: float"}, {"y: float"});
  define<encode8>("SlimfitEncode8", {"x: float", "code: float"}, {"words: int32"});
  define<encode4>("SlimfitEncode4", {"x: float", "code: float"}, {"words: int32"});
  define<decode8<int8_t>>("SlimfitDecodeInt8", {"words: int32", "shape: int32", "step: float"}, {"y: float"});
  define<decode8<uint8_t>>("SlimfitDecodeUint8", {"words: int32", "shape: int32", "step: float"}, {"y: float"});
  define<decode4>("SlimfitDecode4", {"words: int32", "shape: int32", "step: float"}, {"y: float"});
  define<topK>("SlimfitTopK", {"x: float", "count: int32"}, {"values: float", "indices: int32"});
  define<densify>("SlimfitDensify", {"values: float", "indices: int32", "shape: int32"}, {"y: float"});
  define<writeRows>("SlimfitWriteRows", {"table: float", "ids: int32", "rows: float"}, {});
  define<writeRows>("SlimfitWriteRowsInt", {"table: int32", "ids: int32", "rows: int32"}, {});
  define<adamW>("SlimfitAdamW", {"weight: float", "m: float", "v: float", "grad: float", "options: float"}, {"magnitude: float"});
}

}  // namespace

/** A Node module without contents: that it loads says that the operations are there. */
NAPI_MODULE_INIT() {
  static std::once_flag once;
  std::call_once(once, defineAll);
  if (!registered) napi_throw_error(env, nullptr, "TensorFlow did not take the fused kernels");
  return exports;
}
