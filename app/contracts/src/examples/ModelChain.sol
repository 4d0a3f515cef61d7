// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {INFERENCE, ModelInferenceMode, Number} from "../IInference.sol";
import {Decimals} from "../Decimals.sol";
import {Requests} from "../Requests.sol";

/// @title Asks one model about another's answer, in one transaction
contract ModelChain {
    using Decimals for Number;

    /// @notice A picture was read as `digit` and scored. Probability and score with `SCALE` places after the point.
    event Scored(uint256 digit, int256 probability, int256 score);
    /// @notice `depth` requests, each about the answer of the one before, ended at `value`, `SCALE` places after the point.
    event Iterated(int128 x, uint256 depth, int256 value);

    /// @notice Places after the point of every stored value; answers are cut to as many before they are asked about.
    uint8 public constant SCALE = 6;

    string private constant DIGITS = "penstock/digits-mlp";
    /// @dev y = x0 + 2 * x1 + 3
    string private constant LINEAR = "penstock/linear";

    /// @notice The digit read last, 0 to 9.
    uint256 public digit;
    /// @notice How sure the model was of it, 0 to 1 with `SCALE` places after the point.
    int256 public probability;
    /// @notice What the second model made of digit and probability, `SCALE` places after the point.
    int256 public score;
    /// @notice Where the last iteration ended, `SCALE` places after the point.
    int256 public value;

    /// @notice Has one model read a digit and another score (digit, probability).
    /// @param image 64 grey values, 8 rows of 8.
    function classifyThenScore(Number[] calldata image) external {
        uint32[] memory shape = new uint32[](2);
        (shape[0], shape[1]) = (1, 64);
        Number[] memory probabilities = INFERENCE.runModelInference(
            Requests.tensor(ModelInferenceMode.VANILLA, DIGITS, "image", image, shape)
        ).numbers[0].values;

        (uint256 best, int256 bestProbability) = _argMax(probabilities);
        digit = best;
        probability = bestProbability;
        score = _linear(Decimals.whole(int128(uint128(best))), Decimals.fromFixed(bestProbability, SCALE));
        emit Scored(best, bestProbability, score);
    }

    /// @notice Feeds a model its own answer `depth` times: request i is (the last answer, i), the first is (x, 0).
    function iterate(int128 x, uint256 depth) external {
        Number memory last = Decimals.whole(x);
        for (uint256 i = 0; i < depth; i++) {
            last = Decimals.fromFixed(_linear(last, Decimals.whole(int128(uint128(i)))), SCALE);
        }
        value = last.toFixed(SCALE);
        emit Iterated(x, depth, value);
    }

    /// @dev The first of the largest values, and that value with `SCALE` places after the point.
    function _argMax(Number[] memory values) private pure returns (uint256 best, int256 bestValue) {
        bestValue = type(int256).min;
        for (uint256 i = 0; i < values.length; i++) {
            int256 candidate = values[i].toFixed(SCALE);
            if (candidate > bestValue) (best, bestValue) = (i, candidate);
        }
    }

    function _linear(Number memory x0, Number memory x1) private returns (int256) {
        return INFERENCE.runModelInference(Requests.pair(LINEAR, "x", x0, x1)).numbers[0].values[0].toFixed(SCALE);
    }
}
