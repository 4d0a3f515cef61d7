// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {INFERENCE, Number} from "../IInference.sol";
import {Decimals} from "../Decimals.sol";
import {Requests} from "../Requests.sol";

/// @title Asks many independent questions in one transaction
/// @notice No question depends on another's answer, so the chain finds them all in one pass and runs them side by side.
contract BatchCaller {
    using Decimals for Number;

    /// @notice All questions were answered. The sum with `SCALE` places after the point.
    event BatchDone(uint256 count, int256 sum);

    /// @notice Places after the point of every stored value.
    uint8 public constant SCALE = 6;

    /// @dev y = x0 + 2 * x1 + 3
    string private constant LINEAR = "penstock/linear";

    /// @notice The answers of the last batch in order, `SCALE` places after the point.
    int256[] public answers;
    /// @notice Their sum, `SCALE` places after the point.
    int256 public sum;

    /// @notice Asks `count` questions, the i-th being (seed + i, i), whose answer is seed + 3 i + 3.
    function run(uint256 count, int128 seed) external {
        delete answers;
        int256 total = 0;
        for (uint256 i = 0; i < count; i++) {
            int128 index = int128(uint128(i));
            Number memory answer = INFERENCE.runModelInference(
                Requests.pair(LINEAR, "x", Decimals.whole(seed + index), Decimals.whole(index))
            ).numbers[0].values[0];
            int256 scaled = answer.toFixed(SCALE);
            answers.push(scaled);
            total += scaled;
        }
        sum = total;
        emit BatchDone(count, total);
    }

    /// @notice How many questions the last batch had.
    function answerCount() external view returns (uint256) {
        return answers.length;
    }
}
