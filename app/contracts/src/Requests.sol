// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {
    ModelInferenceMode,
    ModelInferenceRequest,
    ModelInput,
    MultiDimensionalNumberTensor,
    Number,
    StringTensor
} from "./IInference.sol";

/// @title Requests with one tensor of numbers, which is what most models take
library Requests {
    /// @notice The 1-D question `values` to `model`.
    function vector(string memory model, string memory inputName, Number[] memory values)
        internal
        pure
        returns (ModelInferenceRequest memory)
    {
        return tensor(ModelInferenceMode.VANILLA, model, inputName, values, new uint32[](0));
    }

    /// @notice The 1-D question (first, second) to `model`.
    function pair(string memory model, string memory inputName, Number memory first, Number memory second)
        internal
        pure
        returns (ModelInferenceRequest memory)
    {
        Number[] memory values = new Number[](2);
        values[0] = first;
        values[1] = second;
        return vector(model, inputName, values);
    }

    /// @notice The question `values`, row-major in `shape`, to `model`. An empty shape means 1-D.
    function tensor(
        ModelInferenceMode mode,
        string memory model,
        string memory inputName,
        Number[] memory values,
        uint32[] memory shape
    ) internal pure returns (ModelInferenceRequest memory request) {
        MultiDimensionalNumberTensor[] memory numbers = new MultiDimensionalNumberTensor[](1);
        numbers[0] = MultiDimensionalNumberTensor(inputName, values, shape);
        request = ModelInferenceRequest(mode, model, ModelInput(numbers, new StringTensor[](0)));
    }
}
