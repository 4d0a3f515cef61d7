// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {INFERENCE, ModelInferenceMode, Number} from "../IInference.sol";
import {Requests} from "../Requests.sol";

/// @title Keeps each account's last answer
/// @notice Nothing that one account's question reads is written by another's: thousands of them can wait for answers
/// side by side, and none has to be simulated again because another one was included.
contract Advisor {
    /// @notice A model answered `account`.
    event Advised(address indexed account, Number answer);

    /// @notice The first number of each account's last answer.
    mapping(address account => Number) public answerOf;

    /// @notice Asks `model` and keeps the first number of its answer for the caller.
    function ask(string calldata model, string calldata inputName, Number[] calldata values, uint32[] calldata shape)
        external
        returns (Number memory answer)
    {
        answer = INFERENCE.runModelInference(
            Requests.tensor(ModelInferenceMode.VANILLA, model, inputName, values, shape)
        ).numbers[0].values[0];
        answerOf[msg.sender] = answer;
        emit Advised(msg.sender, answer);
    }
}
