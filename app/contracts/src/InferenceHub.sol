// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {
    INFERENCE,
    LLMChatRequest,
    LLMChatResponse,
    LLMCompletionRequest,
    LLMCompletionResponse,
    ModelInferenceMode,
    ModelInferenceRequest,
    ModelInput,
    ModelOutput
} from "./IInference.sol";

/// @title The contract that OpenGradient's SDK asks for accounts that are no contracts
/// @notice It hands each question on to the precompile and puts the answer into an event, where a receipt shows it. A
/// denied call reverts with the precompile's own error.
/// @dev Predeployed at 0x00000000000000000000000000000000000000F7 where the genesis says `"inferenceHub": true`. It has no
/// state.
contract InferenceHub {
    /// @notice A model answered.
    event InferenceResult(ModelOutput output);
    /// @notice A language model continued a prompt.
    event LLMCompletionResult(LLMCompletionResponse response);
    /// @notice A language model continued a chat.
    event LLMChatResult(LLMChatResponse response);

    /// @notice Asks the ONNX model `modelId`.
    function run(string calldata modelId, ModelInferenceMode inferenceMode, ModelInput calldata modelInput)
        external
        returns (ModelOutput memory output)
    {
        output = INFERENCE.runModelInference(ModelInferenceRequest(inferenceMode, modelId, modelInput));
        emit InferenceResult(output);
    }

    /// @notice Has a language model continue a prompt.
    function runLLMCompletion(LLMCompletionRequest calldata request)
        external
        returns (LLMCompletionResponse memory response)
    {
        response = INFERENCE.runLLMCompletion(request);
        emit LLMCompletionResult(response);
    }

    /// @notice Has a language model continue a chat.
    function runLLMChat(LLMChatRequest calldata request) external returns (LLMChatResponse memory response) {
        response = INFERENCE.runLLMChat(request);
        emit LLMChatResult(response);
    }
}
