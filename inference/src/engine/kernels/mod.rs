//! Kernels over slices, whose bits are defined in `NUMERICS.md`. `is_x86_feature_detected!` selects machine code, not
//! arithmetic: without FMA hardware `mul_add` is slow and gives the same bits.

pub(crate) mod bytes;
mod channels;
pub(crate) mod conv;
#[cfg(target_arch = "x86_64")]
mod lanes;
pub(crate) mod matmul;
pub(crate) mod planes;
pub(crate) mod pool;
pub(crate) mod product;
pub(crate) mod quant;
pub(crate) mod reduce;
pub(crate) mod term;
mod tiles;
pub(crate) mod unary;

/// Compiles a function three times: for any CPU, for one with AVX2 and FMA, and for one with AVX-512; which is chosen when it
/// runs on one. All do the same arithmetic, so they give the same bits.
macro_rules! vectorized {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$(const $c:ident: usize),+>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name $(<$(const $c: usize),+>)? ($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body $(<$(const $c: usize),+>)? ($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn fast $(<$(const $c: usize),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$($c),+>)? ($($arg),*)
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
                fn faster $(<$(const $c: usize),+>)? ($($arg: $ty),*) $(-> $ret)? {
                    body $(::<$($c),+>)? ($($arg),*)
                }
                if $crate::engine::kernels::has_avx512() {
                    // SAFETY: the CPU has the features that the function is compiled for.
                    return unsafe { faster $(::<$($c),+>)? ($($arg),*) };
                }
                if $crate::engine::kernels::has_avx2() {
                    // SAFETY: the same.
                    return unsafe { fast $(::<$($c),+>)? ($($arg),*) };
                }
            }
            body $(::<$($c),+>)? ($($arg),*)
        }
    };
}
pub(crate) use vectorized;

/// Whether the CPU has what functions are compiled for with AVX2.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

/// Whether the CPU has what functions are compiled for with AVX-512: Intel's servers since Cascade Lake, AMD's since Zen 4.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
        && has_avx2()
}

/// Whether a fused multiply-add is an instruction here.
pub(crate) fn has_fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    return has_avx2();
    #[cfg(not(target_arch = "x86_64"))]
    cfg!(target_arch = "aarch64")
}
