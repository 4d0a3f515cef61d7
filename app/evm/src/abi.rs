//! The contract ABI of the precompiles (`../shared/INTERFACE.md` sections 2 and 3), as Rust types.

#![allow(missing_docs, reason = "the sol! macro generates the items; INTERFACE.md documents them")]
#![allow(clippy::too_many_arguments, reason = "generated")]

alloy_sol_types::sol! {
    // Enums are uint8 here: the encoding is the same, and an unknown mode gets our error, not a decoding failure.

    #[derive(Debug)]
    struct Number { int128 value; int128 decimals; }
    #[derive(Debug)]
    struct MultiDimensionalNumberTensor { string name; Number[] values; uint32[] shape; }
    #[derive(Debug)]
    struct StringTensor { string name; string[] values; }
    #[derive(Debug)]
    struct JsonScalar { string name; string value; }
    #[derive(Debug)]
    struct ModelInput { MultiDimensionalNumberTensor[] numbers; StringTensor[] strings; }
    #[derive(Debug)]
    struct ModelOutput {
        MultiDimensionalNumberTensor[] numbers;
        StringTensor[] strings;
        JsonScalar[] jsons;
        bool is_simulation_result;
    }
    /// The older generation's output, served at 0x1F4.
    #[derive(Debug)]
    struct ModelOutputV1 {
        MultiDimensionalNumberTensor[] numbers;
        StringTensor[] strings;
        bool is_simulation_result;
    }
    #[derive(Debug)]
    struct ModelInferenceRequest { uint8 mode; string modelCID; ModelInput input; }
    #[derive(Debug)]
    struct LLMCompletionRequest {
        uint8 mode;
        string modelCID;
        string prompt;
        uint32 max_tokens;
        string[] stop_sequence;
        uint32 temperature;
    }
    #[derive(Debug)]
    struct LLMCompletionResponse { string answer; }
    #[derive(Debug)]
    struct ToolDefinition { string description; string name; string parameters; }
    #[derive(Debug)]
    struct ToolCall { string id; string name; string arguments; }
    #[derive(Debug)]
    struct ChatMessage { string role; string content; string name; string tool_call_id; ToolCall[] tool_calls; }
    #[derive(Debug)]
    struct LLMChatRequest {
        uint8 mode;
        string modelCID;
        ChatMessage[] messages;
        ToolDefinition[] tools;
        string tool_choice;
        uint32 max_tokens;
        string[] stop_sequence;
        uint32 temperature;
    }
    #[derive(Debug)]
    struct LLMChatResponse { string finish_reason; ChatMessage message; }

    #[derive(Debug)]
    function runModelInference(ModelInferenceRequest request) returns (ModelOutput response);
    #[derive(Debug)]
    function runLLMCompletion(LLMCompletionRequest request) returns (LLMCompletionResponse response);
    #[derive(Debug)]
    function runLLMInference(LLMCompletionRequest request) returns (LLMCompletionResponse response);
    #[derive(Debug)]
    function runLLMChat(LLMChatRequest request) returns (LLMChatResponse response);

    #[derive(Debug)]
    event ModelInferenceEvent(string inferenceID, ModelInferenceRequest request, ModelOutput response);
    #[derive(Debug)]
    event LLMCompletionEvent(string inferenceID, LLMCompletionRequest request, LLMCompletionResponse response);
    #[derive(Debug)]
    event LLMChat(string inferenceID, LLMChatRequest request, LLMChatResponse response);

    #[derive(Debug)]
    error UnknownModel();
    #[derive(Debug)]
    error ModelNotActive();
    #[derive(Debug)]
    error InvalidInput(uint16 code);
    #[derive(Debug)]
    error ModeNotSupported(uint8 mode);
    #[derive(Debug)]
    error InferenceFailed(uint16 code);
    #[derive(Debug)]
    error InferenceUnavailable();
    #[derive(Debug)]
    error OutputTooLarge();

    // The price feed.

    #[derive(Debug)]
    struct HistoricalInputQuery {
        string base;
        string quote;
        uint32 total_candles;
        uint32 candle_duration_in_mins;
        uint8 order;
        uint8[] candle_types;
    }

    #[derive(Debug)]
    function queryHistoricalCandles(HistoricalInputQuery input) returns (Number[] numbers);
    #[derive(Debug)]
    function runInferenceOnPriceFeed(string model_id, string input_name, HistoricalInputQuery input)
        returns (ModelOutput response);

    #[derive(Debug)]
    event HistoricalInferenceEvent(string inferenceID, string modelID, string base, string quote);

    #[derive(Debug)]
    error UnknownPair();
    #[derive(Debug)]
    error CandlesUnavailable(uint64 time);
}

#[cfg(test)]
mod tests {
    use alloy_primitives::{b256, hex};
    use alloy_sol_types::{SolCall, SolEvent};

    use super::*;

    #[test]
    fn selectors_and_topics_are_those_of_the_interface() {
        assert_eq!(runModelInferenceCall::SELECTOR, hex!("7289e9c2"));
        assert_eq!(runLLMCompletionCall::SELECTOR, hex!("14800c61"));
        assert_eq!(runLLMInferenceCall::SELECTOR, hex!("ea3dd516"));
        assert_eq!(runLLMChatCall::SELECTOR, hex!("e39aa7e7"));
        assert_eq!(
            ModelInferenceEvent::SIGNATURE_HASH,
            b256!("1b283af3452f3718585ce100f80d9aa81fc60924db4a582a36db6aae3b109d87")
        );
        assert_eq!(
            LLMCompletionEvent::SIGNATURE_HASH,
            b256!("51fe69d513d73ecde3fa3bf17584f7d2acfd5f0b13d367e898d6e11e742127a3")
        );
        assert_eq!(LLMChat::SIGNATURE_HASH, b256!("4c92d3df7819fcd1c9f9663332f0a599a65eefdad2eaf9193cffb9dbf1919c3b"));
        assert_eq!(queryHistoricalCandlesCall::SELECTOR, hex!("f2f08e63"));
        assert_eq!(runInferenceOnPriceFeedCall::SELECTOR, hex!("a192a0f9"));
        assert_eq!(
            HistoricalInferenceEvent::SIGNATURE_HASH,
            b256!("a0b84adf414dd08829ae42fc67da313f3657559b5a413d120fc74eb81635cb51")
        );
    }
}
