// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {ModelInferenceRequest, MultiDimensionalNumberTensor, StringTensor} from "./IInference.sol";

/// @notice What a model answers in the older generation of the interface: `ModelOutput` without `jsons`.
struct ModelOutputV1 {
    MultiDimensionalNumberTensor[] numbers;
    StringTensor[] strings;
    bool is_simulation_result;
}

/// @notice The older generation of `IInference`, so that sources written for it need to change one constant only.
/// @dev The selector is that of `IInference.runModelInference`, the encoding of the answer is not: hence its own address.
interface IInferenceV1 {
    /// @notice Asks an ONNX model.
    function runModelInference(ModelInferenceRequest calldata request) external returns (ModelOutputV1 memory);
}

/// @dev Where every Penstock chain serves `IInferenceV1`.
IInferenceV1 constant INFERENCE_V1 = IInferenceV1(0x00000000000000000000000000000000000001F4);
