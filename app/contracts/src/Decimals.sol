// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {Number} from "./IInference.sol";

/// @title Between the precompile's decimal numbers and fixed point
/// @notice Fixed point here is an integer that counts units of 10^-decimals: with 6 decimals 1.5 is 1500000.
library Decimals {
    /// @notice The number is too large for the type it was to be put into.
    error NumberTooLarge();

    /// @dev |int128| < 10^39, so dividing by this power or a higher one gives zero.
    int256 private constant DIGITS_OF_INT128 = 39;
    /// @dev The highest power of ten that an int256 holds.
    int256 private constant HIGHEST_POWER = 76;

    /// @notice `number` in fixed point, what does not fit into `decimals` places cut off (towards zero).
    /// @param decimals Places after the point of the result.
    function toFixed(Number memory number, uint8 decimals) internal pure returns (int256) {
        int256 value = number.value;
        int256 shift = int256(uint256(decimals)) - number.decimals;
        if (value == 0 || shift <= -DIGITS_OF_INT128) return 0;
        if (shift < 0) return value / int256(10 ** uint256(-shift));
        if (shift > HIGHEST_POWER) revert NumberTooLarge();
        int256 factor = int256(10 ** uint256(shift));
        int256 result;
        unchecked {
            result = value * factor;
        }
        if (result / factor != value) revert NumberTooLarge();
        return result;
    }

    /// @notice The number that counts `value` units of 10^-decimals. Exact.
    /// @param decimals Places after the point of `value`.
    function fromFixed(int256 value, uint8 decimals) internal pure returns (Number memory) {
        if (value < type(int128).min || value > type(int128).max) revert NumberTooLarge();
        return Number(int128(value), int128(uint128(decimals)));
    }

    /// @notice The whole number `value`.
    function whole(int128 value) internal pure returns (Number memory) {
        return Number(value, 0);
    }
}
