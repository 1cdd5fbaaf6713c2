// The tiles of the attention kernels: all sizes that one chooses, in one table.
#ifndef FLASHINFER_ATTENTION_TILE_SIZES_CUH_
#define FLASHINFER_ATTENTION_TILE_SIZES_CUH_

namespace flashinfer {

// With 16 rows in a block its warps share them, and each takes its part of the keys of a tile; with
// more, each has rows of its own, 16 or 32, and all keys. With 32 rows every fragment of K and V is
// used twice, which halves what is read from shared memory.
struct TileSizes {
  int head_dim, rows;  // of a block: what an instantiation is chosen by
  int keys;            // of a tile
  int key_splits;      // warps that share rows
  int row_tiles;       // of 16 rows, in a warp
  int warp_keys;       // of its keys, that a warp takes at once
  int min_blocks;      // on a multiprocessor, that registers are saved for
};

constexpr TileSizes kTileSizes[] = {
    {64, 16, 64, 4, 1, 16, 1},
    {128, 16, 64, 4, 1, 16, 1},
    {256, 16, 32, 2, 1, 16, 1},
    {64, 64, 64, 1, 1, 64, 1},
    {128, 64, 64, 1, 1, 64, 1},
    {256, 64, 32, 1, 1, 32, 1},
    // Without a number of blocks ptxas spills to get below 128 registers. Scores for all 64 keys do
    // not fit into registers beside an output of 32 x 128. 128 rows of 256 elements do not fit into
    // shared memory.
    {64, 128, 64, 1, 2, 64, 2},
    {128, 128, 64, 1, 2, 32, 2},
};

// The line of the table, or zeros where there is no such kernel.
constexpr TileSizes tile_sizes(int head_dim, int rows) {
  for (const TileSizes& tile : kTileSizes) {
    if (tile.head_dim == head_dim && tile.rows == rows) return tile;
  }
  return {};
}
constexpr bool has_tile(int head_dim, int rows) { return tile_sizes(head_dim, rows).rows == rows; }

}  // namespace flashinfer

#endif  // FLASHINFER_ATTENTION_TILE_SIZES_CUH_
