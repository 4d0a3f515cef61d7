// SPDX-License-Identifier: Apache-2.0 OR MIT
pragma solidity ^0.8.24;

/// @dev Two weeks.
uint256 constant MINUTES = 20160;

/// @title The candles that the price-feed precompile reads
/// @notice One-minute candles of the last two weeks, for each pair of a base and a quote currency. One account, the feeder,
/// pushes them; whoever uses them trusts it.
/// @dev Predeployed at 0x00000000000000000000000000000000000000F8 where the genesis has a `priceFeed`. The precompile reads
/// the storage directly, in the layout that app/evm/src/precompile/candles.rs repeats: a pair is at
/// p = keccak256(keccak256(keccak256(base) . keccak256(quote)) . 1); slot p has the pair's head, slot p + 1 + i the packed
/// candle of the newest minute m with m % CAPACITY == i.
contract CandleFeed {
    /// @notice One minute. Prices count units of 10^-priceDecimals of the pair, the volume units of 10^-volumeDecimals.
    /// @param time Seconds since the epoch at which the minute begins.
    struct Candle {
        uint64 time;
        uint64 open;
        uint64 high;
        uint64 low;
        uint64 close;
        uint64 volume;
    }

    /// @dev The head fills one slot, from its lowest byte on.
    struct Pair {
        uint64 latestMinute;
        uint8 priceDecimals;
        uint8 volumeDecimals;
        bool exists;
        uint256[MINUTES] candles;
    }

    /// @notice Minutes that are kept of a pair.
    uint256 public constant CAPACITY = MINUTES;
    /// @notice Candles of one call.
    uint256 public constant MAX_CANDLES_PER_CALL = 1024;
    /// @notice Places after the point, at most.
    uint8 public constant MAX_DECIMALS = 36;

    // A packed candle, from the lowest bit on: open, high, low, close, volume, minute since the epoch.
    uint256 private constant PRICE_BITS = 44;
    uint256 private constant VOLUME_BITS = 52;
    uint256 private constant MINUTE_BITS = 28;
    uint256 private constant VOLUME_AT = 4 * PRICE_BITS;
    uint256 private constant MINUTE_AT = VOLUME_AT + VOLUME_BITS;

    /// @notice The account that may push candles; zero: nobody.
    address public feeder;
    mapping(bytes32 key => Pair) private pairs;

    /// @notice A pair can be fed.
    event PairAdded(string base, string quote, uint8 priceDecimals, uint8 volumeDecimals);
    /// @notice `count` candles came, the last one of the minute that begins at `latest`.
    event CandlesPushed(bytes32 indexed pair, uint64 latest, uint256 count);
    /// @notice Another account feeds.
    event FeederSet(address indexed feeder);

    /// @notice Only the feeder may do this.
    error NotFeeder();
    /// @notice The pair is there.
    error PairExists();
    /// @notice The pair is not there.
    error UnknownPair();
    /// @notice A name has none or more than 32 bytes, or there are too many places after the point.
    error InvalidPair();
    /// @notice None, or more than `MAX_CANDLES_PER_CALL`.
    error InvalidCount();
    /// @notice The time of candle `index` is not a whole minute, not after the one before it, or not over.
    error InvalidTime(uint256 index);
    /// @notice In candle `index` high and low do not enclose the other prices, or a number is too large.
    error InvalidCandle(uint256 index);
    /// @notice There is no candle of this minute.
    error NoCandle();

    modifier onlyFeeder() {
        if (msg.sender != feeder) revert NotFeeder();
        _;
    }

    /// @notice Begins a pair. Prices have at most 44 bits in units of 10^-priceDecimals, volumes 52.
    function addPair(string calldata base, string calldata quote, uint8 priceDecimals, uint8 volumeDecimals)
        external
        onlyFeeder
    {
        if (!_isName(base) || !_isName(quote) || priceDecimals > MAX_DECIMALS || volumeDecimals > MAX_DECIMALS) {
            revert InvalidPair();
        }
        Pair storage pair = pairs[pairKey(base, quote)];
        if (pair.exists) revert PairExists();
        (pair.priceDecimals, pair.volumeDecimals, pair.exists) = (priceDecimals, volumeDecimals, true);
        emit PairAdded(base, quote, priceDecimals, volumeDecimals);
    }

    /// @notice Adds candles, each later than the one before it. What is older than `CAPACITY` minutes is overwritten.
    /// @dev Minutes may be left out; queries that need one then fail. A minute without trade is a candle with the last
    /// price and no volume.
    function pushCandles(string calldata base, string calldata quote, Candle[] calldata candles) external onlyFeeder {
        uint256 count = candles.length;
        if (count == 0 || count > MAX_CANDLES_PER_CALL) revert InvalidCount();
        bytes32 key = pairKey(base, quote);
        Pair storage pair = pairs[key];
        if (!pair.exists) revert UnknownPair();
        uint64 last = pair.latestMinute;
        for (uint256 i = 0; i < count; i++) {
            Candle calldata candle = candles[i];
            uint64 minute = candle.time / 60;
            if (candle.time % 60 != 0 || minute <= last || uint256(candle.time) + 60 > block.timestamp) {
                revert InvalidTime(i);
            }
            pair.candles[minute % CAPACITY] = _pack(candle, minute, i);
            last = minute;
        }
        pair.latestMinute = last;
        emit CandlesPushed(key, last * 60, count);
    }

    /// @notice Hands the right to feed on; to zero: gives it up for ever.
    function setFeeder(address next) external onlyFeeder {
        feeder = next;
        emit FeederSet(next);
    }

    /// @notice When the newest candle of a pair begins, in seconds since the epoch; 0: there is none. A contract that must
    /// not act on old prices compares this with `block.timestamp`.
    function latest(string calldata base, string calldata quote) external view returns (uint64 time) {
        return _pair(base, quote).latestMinute * 60;
    }

    /// @notice Places after the point of a pair's prices and volumes.
    function decimalsOf(string calldata base, string calldata quote)
        external
        view
        returns (uint8 priceDecimals, uint8 volumeDecimals)
    {
        Pair storage pair = _pair(base, quote);
        return (pair.priceDecimals, pair.volumeDecimals);
    }

    /// @notice The candle of the minute that begins at `time`.
    function candleAt(string calldata base, string calldata quote, uint64 time) external view returns (Candle memory) {
        uint256 packed = _pair(base, quote).candles[(time / 60) % CAPACITY];
        if (packed == 0 || packed >> MINUTE_AT != time / 60) revert NoCandle();
        return Candle({
            time: time / 60 * 60,
            open: _bits(packed, 0, PRICE_BITS),
            high: _bits(packed, PRICE_BITS, PRICE_BITS),
            low: _bits(packed, 2 * PRICE_BITS, PRICE_BITS),
            close: _bits(packed, 3 * PRICE_BITS, PRICE_BITS),
            volume: _bits(packed, VOLUME_AT, VOLUME_BITS)
        });
    }

    /// @notice The name of a pair in events.
    function pairKey(string calldata base, string calldata quote) public pure returns (bytes32) {
        return keccak256(abi.encode(keccak256(bytes(base)), keccak256(bytes(quote))));
    }

    function _pair(string calldata base, string calldata quote) private view returns (Pair storage pair) {
        pair = pairs[pairKey(base, quote)];
        if (!pair.exists) revert UnknownPair();
    }

    function _isName(string calldata name) private pure returns (bool) {
        return bytes(name).length > 0 && bytes(name).length <= 32;
    }

    function _bits(uint256 packed, uint256 from, uint256 bits) private pure returns (uint64) {
        return uint64((packed >> from) & ((1 << bits) - 1));
    }

    function _pack(Candle calldata candle, uint64 minute, uint256 index) private pure returns (uint256) {
        (uint256 open, uint256 high, uint256 low, uint256 close) =
            (candle.open, candle.high, candle.low, candle.close);
        bool encloses = low <= open && open <= high && low <= close && close <= high;
        if (!encloses || high >> PRICE_BITS != 0 || candle.volume >> VOLUME_BITS != 0 || minute >> MINUTE_BITS != 0) {
            revert InvalidCandle(index);
        }
        return open | (high << PRICE_BITS) | (low << (2 * PRICE_BITS)) | (close << (3 * PRICE_BITS))
            | (uint256(candle.volume) << VOLUME_AT) | (uint256(minute) << MINUTE_AT);
    }
}
