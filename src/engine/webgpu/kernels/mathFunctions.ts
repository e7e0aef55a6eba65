/**
 * Functions that WGSL has not, or has only roughly (its exp may be wrong by 3 + 2·|x| units in the last place, its division by 2.5, its tanh by 1e-5): made of additions and multiplications, so that they
 * give the same on every GPU. Each is text to put before a kernel's body.
 */

/** e^x to about 1 unit in the last place (Cephes' expf): x = n·ln 2 + r, a polynomial in r, times 2^n in two factors. Infinity and NaN come out as they should. */
export const EXP = `
fn isNan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn expOf(x: f32) -> f32 {
  let c = clamp(x, -87.33654, 88.72283);
  let n = round(c * 1.44269504);
  let r = (c - n * 0.693359375) + n * 2.12194440e-4;
  var y = 1.9875691500e-4;
  y = y * r + 1.3981999507e-3;
  y = y * r + 8.3334519073e-3;
  y = y * r + 4.1665795894e-2;
  y = y * r + 1.6666665459e-1;
  y = y * r + 5.0000001201e-1;
  y = y * (r * r) + r + 1.0;
  let k = i32(n);
  let half = k >> 1u;
  let e = y * bitcast<f32>(u32(half + 127) << 23u) * bitcast<f32>(u32(k - half + 127) << 23u);
  // Beyond the largest float: its square is infinite.
  let bounded = select(select(e, 0.0, x < -87.33654), e * e, x > 88.72283);
  return select(bounded, x, isNan(x));
}
`;

/** Natural logarithm (Cephes' logf): x = 2^e·m, m in [√½, √2), a polynomial in m − 1. Of 0, −infinity; of less, NaN. Numbers below 2⁻¹²⁶ count as 0. */
export const LOG = `
fn logOf(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  var e = f32(i32(bits >> 23u) - 126);
  var m = bitcast<f32>((bits & 0x7fffffu) | 0x3f000000u);
  if (m < 0.70710678) { e = e - 1.0; m = m + m - 1.0; } else { m = m - 1.0; }
  let z = m * m;
  var y = 7.0376836292e-2;
  y = y * m - 1.1514610310e-1;
  y = y * m + 1.1676998740e-1;
  y = y * m - 1.2420140846e-1;
  y = y * m + 1.4249322787e-1;
  y = y * m - 1.6668057665e-1;
  y = y * m + 2.0000714765e-1;
  y = y * m - 2.4999993993e-1;
  y = y * m + 3.3333331174e-1;
  y = y * m * z + e * -2.12194440e-4 - 0.5 * z;
  let l = m + y + e * 0.693359375;
  if ((bits & 0x7fffffffu) > 0x7f800000u || bits == 0x7f800000u) { return x; }
  // Built from bits, since devices may take infinity and NaN for impossible.
  if ((bits & 0x7f800000u) == 0u) { return bitcast<f32>(0xff800000u | (bits & 0x80000000u)); }
  return select(l, bitcast<f32>(bits | 0x7fc00000u), (bits & 0x80000000u) != 0u);
}
`;

/** tanh (Cephes' tanhf): a polynomial below 0.625, else 1 − 2/(e^2x + 1). */
export const TANH = `${EXP}
fn tanhOf(x: f32) -> f32 {
  let a = abs(x);
  let z = x * x;
  var y = -5.70498872745e-3;
  y = y * z + 2.06390887954e-2;
  y = y * z - 5.37397155531e-2;
  y = y * z + 1.33314422036e-1;
  y = y * z - 3.33332819422e-1;
  y = y * z * x + x;
  let far = 1.0 - 2.0 / (expOf(2.0 * min(a, 10.0)) + 1.0);
  return select(select(y, select(far, -far, x < 0.0), a >= 0.625), x, isNan(x));
}
`;

/** The error function: x·P(x²)/Q(x²) on [−4, 4], beyond which it is ±1 to the last bit. The coefficients are those of Eigen's float32 erf. */
export const ERF = `
fn erfOf(x: f32) -> f32 {
  let c = clamp(x, -4.0, 4.0);
  let s = c * c;
  var p0 = -2.72614225801306e-10;
  p0 = p0 * s + 2.77068142495902e-8;
  p0 = p0 * s - 2.10102402082508e-6;
  p0 = p0 * s - 5.69250639462346e-5;
  p0 = p0 * s - 7.34990630326855e-4;
  p0 = p0 * s - 2.95459980854025e-3;
  p0 = p0 * s - 1.60960333262415e-2;
  var q0 = -1.45660718464996e-5;
  q0 = q0 * s - 2.13374055278905e-4;
  q0 = q0 * s - 1.68282697438203e-3;
  q0 = q0 * s - 7.37332916720468e-3;
  q0 = q0 * s - 1.42647390514189e-2;
  return select(c * p0 / q0, x, (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u);
}
`;

/** Φ(x) = (1 + erf(x/√2))/2, and the slope of x·Φ(x). */
export const GELU = `${EXP}${ERF}
fn phi(x: f32) -> f32 { return 0.5 + 0.5 * erfOf(x * 0.70710678118654752); }
fn geluSlope(x: f32) -> f32 { return phi(x) + x * (expOf(-0.5 * x * x) * 0.39894228040143268); }
`;

/**
 * a/b rounded to nearest, halves to even, as IEEE 754 has it: codes must be equal to the bit on every engine, and a GPU's division is not exact. Its quotient is corrected by the exact remainder of the
 * mantissas, which is small, so that 32 bits hold it although the products are longer. Where an operand or the quotient is not a normal number the device's own quotient stays.
 */
export const EXACT_DIVISION = `
fn exactDiv(a: f32, b: f32) -> f32 {
  let near = a / b;
  let ua = bitcast<u32>(a);
  let ub = bitcast<u32>(b);
  let un = bitcast<u32>(near);
  let ea = i32((ua >> 23u) & 255u);
  let eb = i32((ub >> 23u) & 255u);
  let en = i32((un >> 23u) & 255u);
  let ma = (ua & 0x7fffffu) | 0x800000u;
  let mb = (ub & 0x7fffffu) | 0x800000u;
  let below = ma < mb;
  let e = ea - eb + select(127, 126, below);
  if (ea == 0 || ea == 255 || eb == 0 || eb == 255 || en == 0 || en == 255 || e < 1 || e > 253 || abs(en - e) > 1) { return near; }
  // floor(ma·2^shift/mb) has 25 bits: the mantissa and one bit to round by.
  let shift = select(24u, 25u, below);
  var q = ((un & 0x7fffffu) | 0x800000u) << u32(en - e + 1);
  var r = bitcast<i32>((ma << shift) - q * mb);
  loop { if (r >= 0) { break; } q = q - 1u; r = r + i32(mb); }
  loop { if (r < i32(mb)) { break; } q = q + 1u; r = r - i32(mb); }
  var m = q >> 1u;
  if ((q & 1u) == 1u && (r != 0 || (m & 1u) == 1u)) { m = m + 1u; }
  return bitcast<f32>(((ua ^ ub) & 0x80000000u) | ((u32(e) << 23u) + (m - 0x800000u)));
}
`;

/** pcg3d: 32 random bits of (seed, counter, position), see randomBits.ts. */
export const RANDOM_BITS = `
fn randomBits(seed: u32, counter: u32, position: u32) -> u32 {
  var v = vec3u(seed, counter, position) * 1664525u + 1013904223u;
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v = v ^ (v >> vec3u(16u));
  return v.x + v.y * v.z;
}
`;

/** Sum, or another reduction, of one number of each thread of the workgroup; every thread gets it. The order is fixed. @param op of `a` and `b` */
export const workgroupReduce = (name: string, op: string): string => `
var<workgroup> ${name}Cells: array<f32, W>;
fn ${name}(v: f32, lid: u32) -> f32 {
  ${name}Cells[lid] = v;
  workgroupBarrier();
  for (var s = W / 2u; s > 0u; s = s >> 1u) {
    if (lid < s) { let a = ${name}Cells[lid]; let b = ${name}Cells[lid + s]; ${name}Cells[lid] = ${op}; }
    workgroupBarrier();
  }
  let all = ${name}Cells[0];
  workgroupBarrier();
  return all;
}
`;
export const SUM_ALL = workgroupReduce('sumAll', 'a + b');
export const MAX_ALL = workgroupReduce('maxAll', 'max(a, b)');
