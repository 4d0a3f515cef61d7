//! Convolution with the lanes of a register over output channels. Each weight that is loaded meets some neighbouring pixels,
//! which are read one by one where they lie; so no lane is idle where an image row is no multiple of a register, and nothing
//! is gathered. What it costs is that the sums of a tile are turned before they are stored.
//!
//! The bits are those of the product of `matmul.rs`: an element is one chain over k.

#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::{__m256, __m512};

#[cfg(target_arch = "x86_64")]
use super::lanes::{Lanes, Turned};
use super::{
    matmul::{PANEL, Packed, SPREAD},
    term::Accumulator,
};
use crate::engine::{
    places::Places,
    threads::{divided, part, share},
};

/// Bytes of weights that are gone over for each tile of pixels: they stay in the second-level cache meanwhile.
const WEIGHT_BYTES: usize = 192 << 10;

/// The output channels of a group.
#[derive(Clone, Copy)]
pub(super) struct Channels<'a> {
    /// A column for each, with a row for each tap.
    pub(super) weights: &'a Packed,
    /// Added to the finished sums of each; empty: nothing is.
    pub(super) bias: &'a [f32],
    /// Whether sums that are less than zero become zero in the end.
    pub(super) rectified: bool,
}

/// Where outputs find their terms: that of tap i of the output in row y and column x is
/// `data[taps[i] + y · pitch + x]`.
#[derive(Clone, Copy)]
pub(super) struct Image<'a> {
    pub(super) data: &'a [f32],
    pub(super) taps: &'a [usize],
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) pitch: usize,
}

/// Some neighbouring outputs of a row.
#[derive(Clone, Copy)]
struct Tile {
    /// Where its first pixel's terms are, relative to the taps.
    at: usize,
    /// Where the first output goes in its channel.
    to: usize,
}

/// Writes the outputs of each channel row by row; channels begin `apart` elements from each other.
pub(super) fn convolve(channels: Channels<'_>, image: Image<'_>, (out, apart): (&mut [f32], usize), threads: usize) {
    let (k, n, size) = (image.taps.len(), channels.weights.columns(), image.height * image.width);
    if k == 0 || n == 0 || size == 0 {
        return;
    }
    // Without padding between them, rows are one.
    let image = if image.pitch == image.width { Image { height: 1, width: size, pitch: size, ..image } } else { image };
    // What the micro-kernels read and write without looking.
    let reach = image.taps.iter().max().and_then(|tap| tap.checked_add((image.height - 1) * image.pitch + image.width));
    let written = (n - 1).checked_mul(apart).and_then(|begin| begin.checked_add(size));
    let enough = reach.is_some_and(|len| len <= image.data.len())
        && written.is_some_and(|len| len <= out.len())
        && size <= apart
        && channels.weights.rows() == k;
    assert!(enough, "operands are smaller than their shapes");
    let (panels, out) = (n.div_ceil(PANEL), Places::new(out));
    let work = (size as u64).saturating_mul(k as u64).saturating_mul(n as u64);
    if threads <= 1 || work <= SPREAD {
        // SAFETY: the sizes have been checked, and the output is lent to this thread alone.
        return unsafe { tiles(channels, image, (0, panels), out, apart) };
    }
    // A thread reads some of the weights, or a part of the image, alone: of what is larger.
    let wide = panels.div_ceil(PANELS);
    let length = if image.height > 1 { image.height } else { image.width.div_ceil(PIXELS) };
    let (across, along) = if k * n > image.data.len() {
        divided(threads, wide, length)
    } else {
        let (along, across) = divided(threads, length, wide);
        (across, along)
    };
    share(threads, across * along, &|i| {
        let (from, to) = part(i % along, along, length);
        let (image, at) = if image.height > 1 {
            (Image { data: &image.data[from * image.pitch..], height: to - from, ..image }, from * image.width)
        } else {
            let (from, to) = (from * PIXELS, image.width.min(to * PIXELS));
            (Image { data: &image.data[from..], width: to - from, ..image }, from)
        };
        let (from, to) = part(i / along, across, wide);
        let panels = (from * PANELS, panels.min(to * PANELS));
        // SAFETY: the sizes have been checked, and each part has places of its own.
        unsafe { tiles(channels, image, panels, out.from(at), apart) };
    });
}

/// Panels, and pixels of a row that is alone, of which a thread has all or none.
const PANELS: usize = 2;
const PIXELS: usize = 14;

/// The channels of some panels: from the first, up to the second.
///
/// # Safety
/// The operands have the sizes that [`convolve`] asks for, and nobody else uses the places of these outputs.
unsafe fn tiles(channels: Channels<'_>, image: Image<'_>, panels: (usize, usize), out: Places<'_, f32>, apart: usize) {
    #[cfg(target_arch = "x86_64")]
    if super::has_avx512() {
        // SAFETY: the CPU has the features that the function is compiled for; the rest is as promised.
        return unsafe { tiles_avx512(channels, image, panels, out, apart) };
    } else if super::has_avx2() {
        // SAFETY: the same.
        return unsafe { tiles_avx2(channels, image, panels, out, apart) };
    }
    // SAFETY: as promised.
    unsafe { tiles_portable(channels, image, panels, out, apart) }
}

/// Goes over the tiles: panels in blocks that stay in a cache, rows, some pixels of them, and the panels of the block, `$most`
/// at a time. Tiles of one row are as wide as each other, within one; the widths that there are kernels for are listed, the
/// widest first.
macro_rules! walk {
    ($micro:ident, $channels:ident, $image:ident, $panels:ident, $out:ident, $apart:ident, $most:literal, [$widest:literal, $($width:literal),*]) => {{
        let (begin, end) = $panels;
        let block = (WEIGHT_BYTES / 4 / ($image.taps.len() * PANEL)).max(1).next_multiple_of($most);
        let count = $image.width.div_ceil($widest);
        let (least, wider) = ($image.width / count, $image.width % count);
        for first in (begin..end).step_by(block) {
            let last = end.min(first + block);
            for y in 0..$image.height {
                let mut x = 0;
                for i in 0..count {
                    let width = least + usize::from(i < wider);
                    let tile = Tile { at: y * $image.pitch + x, to: y * $image.width + x };
                    let mut p = first;
                    while p < last {
                        let out = $out.from(p * PANEL * $apart);
                        // A block ends in the middle of a kernel's panels only where all panels do.
                        if last - p >= $most {
                            match width {
                                $($width => $micro::<$width, $most>($channels, $image, p, tile, out, $apart),)*
                                _ => $micro::<$widest, $most>($channels, $image, p, tile, out, $apart),
                            }
                            p += $most;
                        } else {
                            match width {
                                $($width => $micro::<$width, 1>($channels, $image, p, tile, out, $apart),)*
                                _ => $micro::<$widest, 1>($channels, $image, p, tile, out, $apart),
                            }
                            p += 1;
                        }
                    }
                    x += width;
                }
            }
        }
    }};
}

/// # Safety
/// As [`tiles`], on a CPU that has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")]
unsafe fn tiles_avx512(
    channels: Channels<'_>,
    image: Image<'_>,
    panels: (usize, usize),
    out: Places<'_, f32>,
    apart: usize,
) {
    // SAFETY: as promised.
    unsafe {
        walk!(micro_avx512, channels, image, panels, out, apart, 2, [14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    }
}

/// # Safety
/// As [`tiles`], on a CPU that has the features.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn tiles_avx2(
    channels: Channels<'_>,
    image: Image<'_>,
    panels: (usize, usize),
    out: Places<'_, f32>,
    apart: usize,
) {
    // SAFETY: as promised.
    unsafe { walk!(micro_avx2, channels, image, panels, out, apart, 1, [6, 5, 4, 3, 2, 1]) }
}

/// # Safety
/// As [`tiles`].
unsafe fn tiles_portable(
    channels: Channels<'_>,
    image: Image<'_>,
    panels: (usize, usize),
    out: Places<'_, f32>,
    apart: usize,
) {
    // SAFETY: as promised.
    unsafe { walk!(micro, channels, image, panels, out, apart, 1, [6, 5, 4, 3, 2, 1]) }
}

/// A micro-kernel by intrinsics, for the reasons of that in `tiles.rs`: `C` pixels, and the channels of `P` panels from `p`
/// on, whose outputs begin with `out`.
macro_rules! micro_by_lanes {
    ($(#[$meta:meta])* $name:ident, $features:literal, $lanes:ty, $count:literal) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// The CPU has the features, the operands have the sizes that [`convolve`] asks for, and nobody else uses the places
        /// of these outputs.
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<const C: usize, const P: usize>(
            channels: Channels<'_>,
            image: Image<'_>,
            p: usize,
            tile: Tile,
            out: Places<'_, f32>,
            apart: usize,
        ) {
            // Registers of a line of a panel: one or two.
            const PARTS: usize = PANEL / $count;
            // SAFETY: the CPU has the features of this function.
            let zero = unsafe { <$lanes>::zeros() };
            let mut panels = [&[][..]; P];
            for (q, panel) in panels.iter_mut().enumerate() {
                *panel = channels.weights.panel(p + q);
            }
            let mut sums = [[[zero; PARTS]; P]; C];
            // SAFETY: the tile's first pixel lies within the data.
            let pixels = unsafe { image.data.as_ptr().add(tile.at) };
            for (i, tap) in image.taps.iter().enumerate() {
                let mut lines = [[zero; PARTS]; P];
                for q in 0..P {
                    for part in 0..PARTS {
                        // SAFETY: a panel has a line for each tap.
                        lines[q][part] = unsafe { <$lanes>::load(panels[q].as_ptr().add(i * PANEL + part * $count)) };
                    }
                }
                for c in 0..C {
                    // SAFETY: each tap of each pixel lies within the data; the CPU has the features.
                    unsafe {
                        let x = <$lanes>::splat(*pixels.add(tap + c));
                        for q in 0..P {
                            for part in 0..PARTS {
                                sums[c][q][part] = <$lanes>::add_products(lines[q][part], x, sums[c][q][part]);
                            }
                        }
                    }
                }
            }
            for q in 0..P {
                for part in 0..PARTS {
                    let mut square = [zero; $count];
                    for c in 0..C {
                        square[c] = sums[c][q][part];
                    }
                    // SAFETY: the CPU has the features.
                    let square = unsafe { <$lanes as Turned<$count>>::turned(square) };
                    let first = q * PANEL + part * $count;
                    for lane in 0..$count {
                        let channel = p * PANEL + first + lane;
                        if channel >= channels.weights.columns() {
                            break;
                        }
                        // SAFETY: there is such a channel, so its output has the tile's places; the CPU has the features.
                        unsafe {
                            let mut sums = square[lane];
                            if let Some(bias) = channels.bias.get(channel) {
                                sums = <$lanes>::add_to_all(sums, *bias);
                            }
                            if channels.rectified {
                                sums = <$lanes>::rectify(sums);
                            }
                            let to = out.start().add((first + lane) * apart + tile.to);
                            <$lanes>::store_first(to, C, sums);
                        }
                    }
                }
            }
        }
    };
}

micro_by_lanes! {
    /// For AVX2.
    micro_avx2, "avx2,fma", __m256, 8
}

micro_by_lanes! {
    /// For AVX-512.
    micro_avx512, "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma", __m512, 16
}

/// The same in plain loops. `P` is 1.
///
/// # Safety
/// Nobody else uses the places of these outputs.
#[inline(always)]
unsafe fn micro<const C: usize, const P: usize>(
    channels: Channels<'_>,
    image: Image<'_>,
    p: usize,
    tile: Tile,
    out: Places<'_, f32>,
    apart: usize,
) {
    let mut sums = [[0.0f32; PANEL]; C];
    let (lines, _) = channels.weights.panel(p).as_chunks::<PANEL>();
    for (line, tap) in lines.iter().zip(image.taps) {
        let pixels = &image.data[tile.at + tap..][..C];
        for (sums, x) in sums.iter_mut().zip(pixels) {
            for (sum, weight) in sums.iter_mut().zip(line) {
                *sum = weight.mul_add(*x, *sum);
            }
        }
    }
    let count = PANEL.min(channels.weights.columns() - p * PANEL);
    for lane in 0..count {
        let bias = channels.bias.get(p * PANEL + lane);
        let first = lane * apart + tile.to;
        // SAFETY: as promised.
        let places = unsafe { out.some(first..first + C) };
        for (out, sums) in places.iter_mut().zip(&sums) {
            let sum = bias.map_or(sums[lane], |bias| sums[lane].plus(*bias));
            *out = if channels.rectified { sum.rectified() } else { sum };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sample::{bits, numbers};

    #[test]
    fn every_width_and_number_of_channels_gives_the_chain_over_the_taps() {
        for width in 1..=44 {
            for (n, height, pitch) in
                [(1, 2, width), (16, 1, width + 3), (23, 3, width + 1), (40, 2, width), (75, 1, 50)]
            {
                let taps: Vec<usize> = (0..7 + width % 5).map(|i| (i * 37) % 29).collect();
                let data = numbers(28 + (height - 1) * pitch + width, 1);
                let (plain, bias) = (numbers(n * taps.len(), 2), numbers(n, 3));
                let weights = Packed::new(&plain, taps.len(), n, 1, taps.len());
                let apart = height * width + width % 3;
                let image = Image { data: &data, taps: &taps, height, width, pitch };
                let mut expected = vec![7.0f32; n * apart];
                for (i, out) in expected.iter_mut().enumerate() {
                    let (o, pixel) = (i / apart, i % apart);
                    if pixel < height * width {
                        let at = pixel / width * pitch + pixel % width;
                        let terms = taps.iter().zip(&plain[o * taps.len()..]);
                        let sum = terms.fold(0.0f32, |sum, (tap, w)| w.mul_add(data[tap + at], sum)) + bias[o];
                        *out = if width % 2 == 1 && sum < 0.0 { 0.0 } else { sum };
                    }
                }
                let channels = Channels { weights: &weights, bias: &bias, rectified: width % 2 == 1 };
                let check = |name: &str, compute: &dyn Fn(&mut [f32])| {
                    let mut out = vec![7.0; n * apart];
                    compute(&mut out);
                    assert!(
                        bits(&out) == bits(&expected),
                        "{name}: {n} channels, {height} rows of {width}, {pitch} apart"
                    );
                };
                let all = (0, n.div_ceil(PANEL));
                check("chosen", &|out| convolve(channels, image, (out, apart), 1));
                // SAFETY: the sizes are right: `convolve` has just looked at them.
                check("portable", &|out| unsafe { tiles_portable(channels, image, all, Places::new(out), apart) });
                #[cfg(target_arch = "x86_64")]
                if super::super::has_avx2() {
                    // SAFETY: the same, and the CPU has the features.
                    check("AVX2", &|out| unsafe { tiles_avx2(channels, image, all, Places::new(out), apart) });
                }
            }
        }
    }

    #[test]
    fn threads_have_channels_of_their_own() {
        let (n, width, taps) = (75, 500, (0..99).collect::<Vec<usize>>());
        let data = numbers(99 + width, 1);
        let weights = Packed::new(&numbers(n * taps.len(), 2), taps.len(), n, 1, taps.len());
        let channels = Channels { weights: &weights, bias: &numbers(n, 3), rectified: false };
        let image = Image { data: &data, taps: &taps, height: 1, width, pitch: width };
        let [alone, threads @ ..] = [1, 2, 3, 16].map(|threads| {
            let mut out = vec![0.0; n * width];
            convolve(channels, image, (&mut out, width), threads);
            bits(&out)
        });
        assert!(threads.iter().all(|out| *out == alone));
    }
}
