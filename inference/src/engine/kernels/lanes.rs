//! Registers of the terms of a matrix product, for each kind of x86-64 processor that has machine code of its own.
//!
//! | | AVX2 | AVX-512 |
//! |---|---|---|
//! | features | `avx2`, `fma` | `avx512f`, `avx512bw`, `avx512vnni` |
//! | float32 | fused multiply-add of 8 | of 16 |
//! | pairs of integers | products of two added, then added to the sum | both at once |
//! | quads of bytes | as two pairs | four products added at once |

use core::arch::x86_64::{
    __m256, __m256i, __m512, __m512i, _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maskstore_epi32, _mm256_maskstore_ps,
    _mm256_max_epi32, _mm256_max_ps, _mm256_permute2f128_ps, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setzero_ps, _mm256_setzero_si256, _mm256_shuffle_ps, _mm256_slli_epi16, _mm256_srai_epi16,
    _mm256_srli_epi16, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_unpackhi_ps, _mm256_unpacklo_ps, _mm512_add_epi32,
    _mm512_add_ps, _mm512_dpbusd_epi32, _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
    _mm512_mask_storeu_epi32, _mm512_mask_storeu_ps, _mm512_max_epi32, _mm512_max_ps, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_shuffle_ps, _mm512_storeu_ps,
    _mm512_storeu_si512, _mm512_unpackhi_ps, _mm512_unpacklo_ps,
};

use super::term::{Pair, Quad, Term};

/// A register of terms, or of as many sums. All terms have 32 bits.
///
/// # Safety
/// Of every function: the CPU has the features of the register's kind.
pub(crate) trait Lanes<T: Term>: Copy {
    /// Terms of one register.
    const COUNT: usize;

    /// # Safety
    /// As of the trait.
    unsafe fn zeros() -> Self;

    /// # Safety
    /// As of the trait; there are [`Self::COUNT`] terms.
    unsafe fn load(from: *const T) -> Self;

    /// # Safety
    /// As of the trait.
    unsafe fn splat(term: T) -> Self;

    /// [`Term::add_product`] of each lane.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn add_products(a: Self, b: Self, sums: Self) -> Self;

    /// [`Accumulator::plus`] of each lane.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn add_to_all(sums: Self, bias: T::Sum) -> Self;

    /// [`Accumulator::rectified`] of each lane.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn rectify(sums: Self) -> Self;

    /// # Safety
    /// As of the trait; there are [`Self::COUNT`] places.
    unsafe fn store(to: *mut T::Sum, sums: Self);

    /// Stores the first lanes.
    ///
    /// # Safety
    /// As of the trait; `count` is not more than [`Self::COUNT`], and there are so many places.
    unsafe fn store_first(to: *mut T::Sum, count: usize, sums: Self);
}

/// Squares of registers: as many as one has lanes.
///
/// # Safety
/// Of every function: the CPU has the features of the register's kind.
pub(crate) trait Turned<const N: usize>: Copy {
    /// Lane j of register i is lane i of register j.
    ///
    /// # Safety
    /// As of the trait.
    unsafe fn turned(square: [Self; N]) -> [Self; N];
}

/// The mask of the first `count` lanes of a register of 8: from where it begins here.
const FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

#[inline(always)]
unsafe fn first_of_8(count: usize) -> __m256i {
    // SAFETY: the caller promises AVX2 and a count of 8 at most, so that 8 numbers follow.
    unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - count).cast()) }
}

impl Lanes<f32> for __m256 {
    const COUNT: usize = 8;

    #[inline(always)]
    unsafe fn zeros() -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn splat(term: f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_set1_ps(term) }
    }

    #[inline(always)]
    unsafe fn add_products(a: Self, b: Self, sums: Self) -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_fmadd_ps(a, b, sums) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: Self) {
        // SAFETY: as promised.
        unsafe { _mm256_storeu_ps(to, sums) }
    }

    #[inline(always)]
    unsafe fn rectify(sums: Self) -> Self {
        // SAFETY: as promised. The second operand stays if one is NaN, and of two zeros.
        unsafe { _mm256_max_ps(_mm256_setzero_ps(), sums) }
    }

    #[inline(always)]
    unsafe fn add_to_all(sums: Self, bias: f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm256_add_ps(sums, _mm256_set1_ps(bias)) }
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, count: usize, sums: Self) {
        // SAFETY: as promised.
        unsafe { _mm256_maskstore_ps(to, first_of_8(count), sums) }
    }
}

impl Lanes<f32> for __m512 {
    const COUNT: usize = 16;

    #[inline(always)]
    unsafe fn zeros() -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn splat(term: f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_set1_ps(term) }
    }

    #[inline(always)]
    unsafe fn add_products(a: Self, b: Self, sums: Self) -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_fmadd_ps(a, b, sums) }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, sums: Self) {
        // SAFETY: as promised.
        unsafe { _mm512_storeu_ps(to, sums) }
    }

    #[inline(always)]
    unsafe fn rectify(sums: Self) -> Self {
        // SAFETY: as promised. The second operand stays if one is NaN, and of two zeros.
        unsafe { _mm512_max_ps(_mm512_setzero_ps(), sums) }
    }

    #[inline(always)]
    unsafe fn add_to_all(sums: Self, bias: f32) -> Self {
        // SAFETY: as promised.
        unsafe { _mm512_add_ps(sums, _mm512_set1_ps(bias)) }
    }

    #[inline(always)]
    unsafe fn store_first(to: *mut f32, count: usize, sums: Self) {
        // SAFETY: as promised.
        unsafe { _mm512_mask_storeu_ps(to, ((1_u32 << count) - 1) as u16, sums) }
    }
}

impl Turned<8> for __m256 {
    #[inline(always)]
    unsafe fn turned(rows: [Self; 8]) -> [Self; 8] {
        // SAFETY: as promised.
        unsafe {
            let zero = _mm256_setzero_ps();
            // Within halves of a register: pairs of rows, then four.
            let (mut pairs, mut fours, mut columns) = ([zero; 8], [zero; 8], [zero; 8]);
            for i in 0..4 {
                pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            for i in 0..2 {
                let (a, b, c, d) = (pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]);
                fours[4 * i] = _mm256_shuffle_ps::<0b01_00_01_00>(a, c);
                fours[4 * i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(a, c);
                fours[4 * i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(b, d);
                fours[4 * i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(b, d);
            }
            for i in 0..4 {
                columns[i] = _mm256_permute2f128_ps::<0x20>(fours[i], fours[4 + i]);
                columns[4 + i] = _mm256_permute2f128_ps::<0x31>(fours[i], fours[4 + i]);
            }
            columns
        }
    }
}

impl Turned<16> for __m512 {
    #[inline(always)]
    unsafe fn turned(rows: [Self; 16]) -> [Self; 16] {
        // SAFETY: as promised.
        unsafe {
            let zero = _mm512_setzero_ps();
            // Within quarters of a register: pairs of rows, then four. Then the quarters, twice.
            let (mut pairs, mut fours, mut halves, mut columns) = ([zero; 16], [zero; 16], [zero; 16], [zero; 16]);
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            for i in 0..4 {
                let (a, b, c, d) = (pairs[4 * i], pairs[4 * i + 1], pairs[4 * i + 2], pairs[4 * i + 3]);
                fours[4 * i] = _mm512_shuffle_ps::<0b01_00_01_00>(a, c);
                fours[4 * i + 1] = _mm512_shuffle_ps::<0b11_10_11_10>(a, c);
                fours[4 * i + 2] = _mm512_shuffle_ps::<0b01_00_01_00>(b, d);
                fours[4 * i + 3] = _mm512_shuffle_ps::<0b11_10_11_10>(b, d);
            }
            for i in 0..4 {
                halves[i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours[i], fours[4 + i]);
                halves[4 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours[i], fours[4 + i]);
                halves[8 + i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(fours[8 + i], fours[12 + i]);
                halves[12 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(fours[8 + i], fours[12 + i]);
            }
            for i in 0..4 {
                columns[i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(halves[i], halves[8 + i]);
                columns[4 + i] = _mm512_shuffle_f32x4::<0b10_00_10_00>(halves[4 + i], halves[12 + i]);
                columns[8 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(halves[i], halves[8 + i]);
                columns[12 + i] = _mm512_shuffle_f32x4::<0b11_01_11_01>(halves[4 + i], halves[12 + i]);
            }
            columns
        }
    }
}

/// Registers of terms that are integers of 32 bits to a register, and of their sums.
macro_rules! integers {
    ($(#[$meta:meta])* $name:ident($register:ident): $count:literal of $term:ident, $zeros:ident, $load:ident, $splat:ident, $store:ident, $add:ident, $max:ident,
     |$to:ident, $first:ident, $kept:ident| $store_first:expr, |$a:ident, $b:ident, $sums:ident| $products:expr) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub(crate) struct $name($register);

        impl Lanes<$term> for $name {
            const COUNT: usize = $count;

            #[inline(always)]
            unsafe fn zeros() -> Self {
                // SAFETY: as promised.
                unsafe { Self($zeros()) }
            }

            #[inline(always)]
            unsafe fn load(from: *const $term) -> Self {
                // SAFETY: as promised; a term has 32 bits.
                unsafe { Self($load(from.cast())) }
            }

            #[inline(always)]
            unsafe fn splat(term: $term) -> Self {
                // SAFETY: as promised.
                unsafe { Self($splat(term.bits())) }
            }

            #[inline(always)]
            unsafe fn add_products(Self($a): Self, Self($b): Self, Self($sums): Self) -> Self {
                // SAFETY: as promised.
                unsafe { Self($products) }
            }

            #[inline(always)]
            unsafe fn store(to: *mut i32, sums: Self) {
                // SAFETY: as promised.
                unsafe { $store(to.cast(), sums.0) }
            }

            #[inline(always)]
            unsafe fn add_to_all(sums: Self, bias: i32) -> Self {
                // SAFETY: as promised.
                unsafe { Self($add(sums.0, $splat(bias))) }
            }

            #[inline(always)]
            unsafe fn rectify(sums: Self) -> Self {
                // SAFETY: as promised.
                unsafe { Self($max(sums.0, $zeros())) }
            }

            #[inline(always)]
            unsafe fn store_first($to: *mut i32, $first: usize, Self($kept): Self) {
                // SAFETY: as promised.
                unsafe { $store_first }
            }
        }
    };
}

/// Of AVX2.
macro_rules! integers_256 {
    ($(#[$meta:meta])* $name:ident of $term:ident, |$a:ident, $b:ident, $sums:ident| $products:expr) => {
        integers! {
            $(#[$meta])*
            $name(__m256i): 8 of $term, _mm256_setzero_si256, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_storeu_si256, _mm256_add_epi32, _mm256_max_epi32,
            |to, count, sums| _mm256_maskstore_epi32(to, first_of_8(count), sums), |$a, $b, $sums| $products
        }
    };
}

/// Of AVX-512.
macro_rules! integers_512 {
    ($(#[$meta:meta])* $name:ident of $term:ident, |$a:ident, $b:ident, $sums:ident| $products:expr) => {
        integers! {
            $(#[$meta])*
            $name(__m512i): 16 of $term, _mm512_setzero_si512, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_storeu_si512, _mm512_add_epi32, _mm512_max_epi32,
            |to, count, sums| _mm512_mask_storeu_epi32(to, ((1_u32 << count) - 1) as u16, sums), |$a, $b, $sums| $products
        }
    };
}

integers_256! {
    /// Of pairs, with AVX2.
    Pairs256 of Pair, |a, b, sums| _mm256_add_epi32(sums, _mm256_madd_epi16(a, b))
}

integers_512! {
    /// Of pairs, with AVX-512.
    Pairs512 of Pair, |a, b, sums| _mm512_dpwssd_epi32(sums, a, b)
}

integers_256! {
    /// Of quads, with AVX2: bytes of even and of odd places as numbers of 16 bits. (An instruction that multiplies bytes would
    /// saturate.)
    Quads256 of Quad, |a, b, sums| {
        let low = _mm256_set1_epi16(0xff);
        let even = _mm256_madd_epi16(_mm256_and_si256(a, low), _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)));
        let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(a), _mm256_srai_epi16::<8>(b));
        _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
    }
}

integers_512! {
    /// Of quads, with AVX-512.
    Quads512 of Quad, |a, b, sums| _mm512_dpbusd_epi32(sums, a, b)
}
