// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

/// @title Penstock's inference precompile
/// @notice A contract asks a model and has the answer when the call returns, in the same transaction.

/// @notice How an answer is to be verified. VANILLA is the model's own policy; ZK and TEE demand that proof and revert
/// with `ModeNotSupported` where the model does not offer it.
enum ModelInferenceMode {
    VANILLA,
    ZK,
    TEE
}

/// @notice As `ModelInferenceMode`, for language models.
enum LLMInferenceMode {
    VANILLA,
    TEE
}

/// @notice The decimal number value / 10^decimals: 1.5 is (15, 1).
/// @dev Going in, `decimals` may be negative (15, -2 is 1500), and the exact decimal is rounded once to the type of the
/// model's input. Coming out, `decimals` is never negative and trailing zeros are removed.
struct Number {
    int128 value;
    int128 decimals;
}

/// @notice Numbers in row-major order.
/// @dev `name` is the name in the ONNX graph; a graph with one input accepts an empty one. An empty `shape` means 1-D, and
/// a 1-D tensor is accepted where the model wants [batch, n].
struct MultiDimensionalNumberTensor {
    string name;
    Number[] values;
    uint32[] shape;
}

/// @notice A 1-D tensor of texts.
struct StringTensor {
    string name;
    string[] values;
}

/// @notice One JSON value as text.
struct JsonScalar {
    string name;
    string value;
}

/// @notice What a model is given.
struct ModelInput {
    MultiDimensionalNumberTensor[] numbers;
    StringTensor[] strings;
}

/// @notice What a model answers, each list in the order of the model's outputs.
/// @dev `is_simulation_result` is true only where nothing is committed (eth_call, eth_estimateGas, a trace) and the real
/// answer was not at hand; the tensors then have their real shapes, filled with zeros. In a committed transaction it is
/// always false.
struct ModelOutput {
    MultiDimensionalNumberTensor[] numbers;
    StringTensor[] strings;
    JsonScalar[] jsons;
    bool is_simulation_result;
}

/// @notice One question to one model. `modelCID` is a name in the chain's registry: `org/name`, an IPFS CID or a blob id.
struct ModelInferenceRequest {
    ModelInferenceMode mode;
    string modelCID;
    ModelInput input;
}

/// @notice A prompt to be continued. `temperature` is in hundredths, 0 to 100; `max_tokens` bounds the answer.
struct LLMCompletionRequest {
    LLMInferenceMode mode;
    string modelCID;
    string prompt;
    uint32 max_tokens;
    string[] stop_sequence;
    uint32 temperature;
}

/// @notice The continuation of a prompt, without the prompt.
struct LLMCompletionResponse {
    string answer;
}

/// @notice A function that a chat model may ask its caller to run. `parameters` is a JSON schema as text.
struct ToolDefinition {
    string description;
    string name;
    string parameters;
}

/// @notice A chat model's wish to have a tool run. `arguments` is JSON as text.
struct ToolCall {
    string id;
    string name;
    string arguments;
}

/// @notice One turn of a chat. `role` is system, user, assistant or tool; `tool_call_id` names the call a tool's turn
/// answers.
struct ChatMessage {
    string role;
    string content;
    string name;
    string tool_call_id;
    ToolCall[] tool_calls;
}

/// @notice A chat so far, to be continued by one message. `temperature` is in hundredths, 0 to 100.
struct LLMChatRequest {
    LLMInferenceMode mode;
    string modelCID;
    ChatMessage[] messages;
    ToolDefinition[] tools;
    string tool_choice;
    uint32 max_tokens;
    string[] stop_sequence;
    uint32 temperature;
}

/// @notice The next message of a chat, and why it ended where it did.
struct LLMChatResponse {
    string finish_reason;
    ChatMessage message;
}

/// @notice The calls of the precompile at 0xF4. They answer or revert with one of the errors below, whose bytes are the
/// same on every node. They refuse value, delegatecall and callcode.
interface IInference {
    /// @notice A model answered. `inferenceID` is the request's id, 32 bytes as 0x-hex text: the same question to the same
    /// model has the same id, and the same answer, for ever.
    event ModelInferenceEvent(string inferenceID, ModelInferenceRequest request, ModelOutput response);
    /// @notice A language model continued a prompt.
    event LLMCompletionEvent(string inferenceID, LLMCompletionRequest request, LLMCompletionResponse response);
    /// @notice A language model continued a chat.
    event LLMChat(string inferenceID, LLMChatRequest request, LLMChatResponse response);

    /// @notice The registry has no model of this name.
    error UnknownModel();
    /// @notice The registry has the model, but it takes no requests now.
    error ModelNotActive();
    /// @notice The input does not fit the model: its names, types, shapes or ranges. The node's source lists the codes.
    error InvalidInput(uint16 code);
    /// @notice The model cannot be asked in this mode, or this kind of call is not served.
    error ModeNotSupported(uint8 mode);
    /// @notice The model ran and gave no usable answer, for example a NaN. The node's source lists the codes.
    error InferenceFailed(uint16 code);
    /// @notice No answer could be had in time; the same question may be answered later.
    error InferenceUnavailable();
    /// @notice The answer is larger than the chain's limit.
    error OutputTooLarge();

    /// @notice Asks an ONNX model.
    function runModelInference(ModelInferenceRequest calldata request) external returns (ModelOutput memory);

    /// @notice Has a language model continue a prompt.
    function runLLMCompletion(LLMCompletionRequest calldata request) external returns (LLMCompletionResponse memory);

    /// @notice The older name of `runLLMCompletion`.
    function runLLMInference(LLMCompletionRequest calldata request) external returns (LLMCompletionResponse memory);

    /// @notice Has a language model continue a chat.
    function runLLMChat(LLMChatRequest calldata request) external returns (LLMChatResponse memory);
}

/// @dev Where every Penstock chain serves `IInference`.
IInference constant INFERENCE = IInference(0x00000000000000000000000000000000000000F4);
