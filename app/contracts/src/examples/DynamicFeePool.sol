// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.20;

import {INFERENCE, ModelInferenceMode, Number} from "../IInference.sol";
import {Decimals} from "../Decimals.sol";
import {Requests} from "../Requests.sol";

/// @title A constant-product pool whose fee follows its own volatility
/// @notice Before each swap the pool shows a model its last ten price candles and takes what the model expects the price
/// to move as the fee: calm markets trade cheaply, wild ones pay the liquidity for its risk.
/// @dev Tokens A and B exist only in this contract's books, which keeps the example about the fee.
contract DynamicFeePool {
    using Decimals for Number;

    /// @notice One account swapped. Amounts in the smallest unit of their token, the fee in hundredths of a percent.
    event Swap(address indexed account, bool aForB, uint256 amountIn, uint256 amountOut, uint256 feeBps);

    /// @notice The account has less than it wants to swap.
    error InsufficientBalance();
    /// @notice A pool needs something of both tokens to have a price.
    error EmptyPool();
    /// @notice The price does not fit a candle.
    error PriceOutOfRange();

    /// @notice The lowest and the highest fee, whatever the model says, in hundredths of a percent.
    uint256 public constant MIN_FEE_BPS = 5;
    uint256 public constant MAX_FEE_BPS = 500;
    uint256 private constant BPS = 10_000;

    /// @notice How many candles the model sees.
    uint256 public constant CANDLES = 10;
    /// @notice Places after the point of a candle's prices.
    uint8 public constant PRICE_DECIMALS = 8;

    /// @notice Prices of A in B around one swap, `PRICE_DECIMALS` places after the point.
    struct Candle {
        uint64 open;
        uint64 high;
        uint64 low;
        uint64 close;
    }

    /// @notice The model asked for the fee: candles [1, 10, 4], oldest first, each (open, high, low, close), to one number,
    /// the expected relative move of the price (0.01 is one percent).
    string public model;
    /// @notice What the pool holds, in the smallest unit of each token.
    uint256 public reserveA;
    uint256 public reserveB;
    /// @notice The fee of the last swap, in hundredths of a percent.
    uint256 public lastFeeBps;
    /// @notice What each account holds.
    mapping(address account => uint256) public balanceA;
    mapping(address account => uint256) public balanceB;

    /// @notice The last ten candles as a ring.
    Candle[CANDLES] public candles;
    /// @dev Where in the ring the oldest candle is, which the next one replaces.
    uint256 private oldest;

    /// @param model_ The registry's name of the volatility model.
    /// @param reserveA_ What the pool starts with of A; with `reserveB_` it sets the opening price.
    /// @param reserveB_ What the pool starts with of B.
    constructor(string memory model_, uint256 reserveA_, uint256 reserveB_) {
        if (reserveA_ == 0 || reserveB_ == 0) revert EmptyPool();
        model = model_;
        reserveA = reserveA_;
        reserveB = reserveB_;
        uint64 opening = price();
        for (uint256 i = 0; i < CANDLES; i++) {
            candles[i] = Candle(opening, opening, opening, opening);
        }
    }

    /// @notice Credits the caller's account, out of nothing.
    function fund(uint256 a, uint256 b) external {
        balanceA[msg.sender] += a;
        balanceB[msg.sender] += b;
    }

    /// @notice Swaps `amountIn` of one token for the other, for the fee the model asks for now.
    /// @return amountOut What the caller got, in the smallest unit of the other token.
    function swap(bool aForB, uint256 amountIn) external returns (uint256 amountOut) {
        uint256 feeBps = currentFeeBps();
        uint64 open = price();

        amountOut = aForB
            ? _trade(balanceA, balanceB, amountIn, _amountOut(reserveA, reserveB, amountIn, feeBps))
            : _trade(balanceB, balanceA, amountIn, _amountOut(reserveB, reserveA, amountIn, feeBps));
        if (aForB) {
            reserveA += amountIn;
            reserveB -= amountOut;
        } else {
            reserveB += amountIn;
            reserveA -= amountOut;
        }

        _remember(open, price());
        lastFeeBps = feeBps;
        emit Swap(msg.sender, aForB, amountIn, amountOut, feeBps);
    }

    /// @notice The price of one A in B, `PRICE_DECIMALS` places after the point.
    function price() public view returns (uint64) {
        uint256 scaled = reserveB * 10 ** PRICE_DECIMALS / reserveA;
        if (scaled > type(uint64).max) revert PriceOutOfRange();
        return uint64(scaled);
    }

    /// @notice The fee a swap would pay now, in hundredths of a percent: the relative move that the model expects.
    /// @dev Not a view: asking a model leaves a log.
    function currentFeeBps() public returns (uint256) {
        uint32[] memory shape = new uint32[](3);
        (shape[0], shape[1], shape[2]) = (1, uint32(CANDLES), 4);
        Number memory volatility = INFERENCE.runModelInference(
            Requests.tensor(ModelInferenceMode.VANILLA, model, "candles", _candleNumbers(), shape)
        ).numbers[0].values[0];

        // Four places after the point count hundredths of a percent.
        int256 bps = volatility.toFixed(4);
        if (bps < int256(MIN_FEE_BPS)) return MIN_FEE_BPS;
        if (bps > int256(MAX_FEE_BPS)) return MAX_FEE_BPS;
        return uint256(bps);
    }

    /// @dev The candles from the oldest to the newest, in the order the model reads them.
    function _candleNumbers() private view returns (Number[] memory numbers) {
        numbers = new Number[](CANDLES * 4);
        for (uint256 i = 0; i < CANDLES; i++) {
            Candle memory candle = candles[(oldest + i) % CANDLES];
            numbers[4 * i] = _priceNumber(candle.open);
            numbers[4 * i + 1] = _priceNumber(candle.high);
            numbers[4 * i + 2] = _priceNumber(candle.low);
            numbers[4 * i + 3] = _priceNumber(candle.close);
        }
    }

    function _priceNumber(uint64 scaled) private pure returns (Number memory) {
        return Decimals.fromFixed(int256(uint256(scaled)), PRICE_DECIMALS);
    }

    /// @dev What x * y = k gives for `amountIn` less the fee; the fee stays in the pool.
    function _amountOut(uint256 reserveIn, uint256 reserveOut, uint256 amountIn, uint256 feeBps)
        private
        pure
        returns (uint256)
    {
        uint256 effective = amountIn * (BPS - feeBps) / BPS;
        return reserveOut * effective / (reserveIn + effective);
    }

    /// @dev Takes `amountIn` from the caller's one account and puts `amountOut` into the other.
    function _trade(
        mapping(address => uint256) storage from,
        mapping(address => uint256) storage to,
        uint256 amountIn,
        uint256 amountOut
    ) private returns (uint256) {
        if (from[msg.sender] < amountIn) revert InsufficientBalance();
        from[msg.sender] -= amountIn;
        to[msg.sender] += amountOut;
        return amountOut;
    }

    /// @dev One swap moves the price one way, so its ends are also its high and low.
    function _remember(uint64 open, uint64 close) private {
        (uint64 high, uint64 low) = open > close ? (open, close) : (close, open);
        candles[oldest] = Candle(open, high, low, close);
        oldest = (oldest + 1) % CANDLES;
    }
}
