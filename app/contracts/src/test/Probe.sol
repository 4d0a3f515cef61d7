// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {
    INFERENCE,
    LLMCompletionRequest,
    LLMCompletionResponse,
    LLMInferenceMode,
    ModelInferenceMode,
    ModelInferenceRequest,
    ModelOutput,
    Number
} from "../IInference.sol";
import {INFERENCE_V1, ModelOutputV1} from "../IInferenceV1.sol";
import {Decimals} from "../Decimals.sol";
import {Requests} from "../Requests.sol";

/// @title Reaches every way of calling the precompile, for tests
/// @notice Each function leaves what it saw in storage, so that a test reads what was committed and not what a call
/// claimed.
contract Probe {
    using Decimals for Number;

    /// @notice A model answered; the same that storage holds.
    event Answered(bytes32 answerHash, bool simulated, int128 value, int128 decimals);

    /// @notice keccak256(abi.encode(output.numbers)) of the last answer.
    bytes32 public answerHash;
    /// @notice The last answer's `is_simulation_result`.
    bool public simulated;
    /// @notice The first number of the last answer; (0, 0) if it had none.
    Number public firstNumber;
    /// @notice The text of the last completion.
    string public lastText;

    /// @notice Whether the last call of a try- or low-level function succeeded.
    bool public lastOk;
    /// @notice The revert bytes of the last try- function; empty if it succeeded.
    bytes public lastError;
    /// @notice What the last low-level call returned, answer or revert bytes.
    bytes public lastReturn;

    /// @notice What `askVolatile` puts into its question.
    uint256 public counter;
    /// @notice The counter that the last `askVolatile` saw.
    uint256 public counterAsked;
    /// @notice What `askUnlessZero` fills.
    mapping(uint256 => uint256) public stored;
    /// @notice Which way `askTwoWays` went last: 1 below or at the threshold, 2 above; 0 never.
    uint8 public way;

    // Requests that revert as the precompile does.

    /// @notice Asks `model` and keeps the answer.
    function ask(string calldata model, string calldata inputName, Number[] calldata values, uint32[] calldata shape)
        external
        returns (ModelOutput memory output)
    {
        output = INFERENCE.runModelInference(
            Requests.tensor(ModelInferenceMode.VANILLA, model, inputName, values, shape)
        );
        _keep(output);
    }

    /// @notice Asks `model` through the older generation's address and keeps the answer.
    function askV1(string calldata model, string calldata inputName, Number[] calldata values, uint32[] calldata shape)
        external
        returns (ModelOutputV1 memory output)
    {
        output = INFERENCE_V1.runModelInference(
            Requests.tensor(ModelInferenceMode.VANILLA, model, inputName, values, shape)
        );
        Number memory first;
        if (output.numbers.length > 0 && output.numbers[0].values.length > 0) first = output.numbers[0].values[0];
        _keep(keccak256(abi.encode(output.numbers)), output.is_simulation_result, first);
    }

    // Requests whose failure is kept.

    /// @notice As `ask`, but a failure ends in `lastError` and not in a revert.
    function tryAsk(string calldata model, string calldata inputName, Number[] calldata values, uint32[] calldata shape)
        external
    {
        _try(Requests.tensor(ModelInferenceMode.VANILLA, model, inputName, values, shape));
    }

    /// @notice As `tryAsk`, in the mode of that number: 0 VANILLA, 1 ZK, 2 TEE.
    function askMode(
        uint8 mode,
        string calldata model,
        string calldata inputName,
        Number[] calldata values,
        uint32[] calldata shape
    ) external {
        _try(Requests.tensor(ModelInferenceMode(mode), model, inputName, values, shape));
    }

    /// @notice Has `model` continue `prompt` by at most 16 tokens; a failure ends in `lastError`.
    function tryCompletion(string calldata model, string calldata prompt) external {
        LLMCompletionRequest memory request =
            LLMCompletionRequest(LLMInferenceMode.VANILLA, model, prompt, 16, new string[](0), 0);
        try INFERENCE.runLLMCompletion(request) returns (LLMCompletionResponse memory response) {
            _succeeded();
            lastText = response.answer;
        } catch (bytes memory reason) {
            _failed(reason);
        }
    }

    // Low-level calls of the precompile with any bytes.

    /// @notice call
    function rawAsk(bytes calldata data) external {
        (bool ok, bytes memory ret) = address(INFERENCE).call(data);
        _keepRaw(ok, ret);
    }

    /// @notice call with the value of this transaction
    function valueAsk(bytes calldata data) external payable {
        (bool ok, bytes memory ret) = address(INFERENCE).call{value: msg.value}(data);
        _keepRaw(ok, ret);
    }

    /// @notice delegatecall
    function delegateAsk(bytes calldata data) external {
        (bool ok, bytes memory ret) = address(INFERENCE).delegatecall(data);
        _keepRaw(ok, ret);
    }

    /// @notice staticcall
    function staticAsk(bytes calldata data) external {
        (bool ok, bytes memory ret) = address(INFERENCE).staticcall(data);
        _keepRaw(ok, ret);
    }

    // Requests that depend on state or on other answers. The models take two numbers named "x".

    /// @notice Changes the question that `askVolatile` asks.
    function bump() external {
        counter++;
    }

    /// @notice Asks `model` about (counter, 0), so that a `bump` before it in a block changes its question.
    function askVolatile(string calldata model) external {
        counterAsked = counter;
        _keep(_pair(model, int128(uint128(counter)), 0));
    }

    /// @notice Asks `model` about (x, 0), then about (x, 1) if the answer is above `threshold`, else about (x, -1), and
    /// keeps the second answer.
    /// @param threshold A whole number.
    function askTwoWays(string calldata model, int128 x, int128 threshold) external {
        bool above = _pair(model, x, 0).numbers[0].values[0].toFixed(18) > Decimals.whole(threshold).toFixed(18);
        way = above ? 2 : 1;
        _keep(_pair(model, x, above ? int128(1) : int128(-1)));
    }

    /// @notice Asks `model` about (x, 0), whose answer must not be 0, and then about (x, 1), and keeps the second answer.
    /// @param otherwise What happens when the first answer is 0, as every placeholder is: 0 reverts, 1 divides by it, 2
    /// asks on and on until the gas ends, 3 writes to storage without an end.
    function askUnlessZero(string calldata model, int128 x, uint8 otherwise) external {
        int256 answer = _pair(model, x, 0).numbers[0].values[0].toFixed(18);
        if (answer == 0) {
            require(otherwise != 0, "zero");
            if (otherwise == 1) counter = 1 / uint256(answer);
            for (uint256 i = 0; otherwise == 2; i++) _pair(model, x, int128(uint128(i + 2)));
            for (uint256 i = 0; otherwise == 3; i++) stored[i] = i + 1;
        }
        _keep(_pair(model, x, 1));
    }

    function _pair(string calldata model, int128 x0, int128 x1) private returns (ModelOutput memory) {
        return INFERENCE.runModelInference(Requests.pair(model, "x", Decimals.whole(x0), Decimals.whole(x1)));
    }

    function _try(ModelInferenceRequest memory request) private {
        try INFERENCE.runModelInference(request) returns (ModelOutput memory output) {
            _succeeded();
            _keep(output);
        } catch (bytes memory reason) {
            _failed(reason);
        }
    }

    function _succeeded() private {
        lastOk = true;
        delete lastError;
    }

    function _failed(bytes memory reason) private {
        lastOk = false;
        lastError = reason;
    }

    function _keepRaw(bool ok, bytes memory ret) private {
        lastOk = ok;
        lastReturn = ret;
    }

    function _keep(ModelOutput memory output) private {
        Number memory first;
        if (output.numbers.length > 0 && output.numbers[0].values.length > 0) first = output.numbers[0].values[0];
        _keep(keccak256(abi.encode(output.numbers)), output.is_simulation_result, first);
    }

    function _keep(bytes32 hash, bool isSimulation, Number memory first) private {
        answerHash = hash;
        simulated = isSimulation;
        firstNumber = first;
        emit Answered(hash, isSimulation, first.value, first.decimals);
    }
}
