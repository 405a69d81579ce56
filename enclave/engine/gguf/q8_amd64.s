#include "textflag.h"

// Every lane chain below is the same for a row and a vector, whichever routine
// computes it: per block acc += float(int dot) * (ws * xs), fused, blocks in
// order; then ((l0+l1)+(l2+l3)) of the low half plus that of the high half.
// All end in VZEROUPPER: Go's scalar floats stall on dirty upper halves.

// DOT leaves the block's eight partial integer sums in Y13, for weights whose
// absolute value is in Y11 and sign-adjusted activations in Y12.
#define DOTVNNI \
	VPXOR Y13, Y13, Y13 \
	VPDPBUSD Y12, Y11, Y13

// The 16-bit sums cannot saturate: 2 * 128 * 127 < 32768.
#define DOTAVX2 \
	VPMADDUBSW Y12, Y11, Y13 \
	VPMADDWD Y15, Y13, Y13

#define ONES \
	VPCMPEQW Y15, Y15, Y15 \
	VPSRLW $15, Y15, Y15

// SUM4 reduces Y0..Y3 to the four floats of X0.
#define SUM4 \
	VHADDPS Y1, Y0, Y0 \
	VHADDPS Y3, Y2, Y2 \
	VHADDPS Y2, Y0, Y0 \
	VEXTRACTF128 $1, Y0, X1 \
	VADDPS X1, X0, X0

// ROW adds one block of the row at w, scale at s, times Y8 (scale Y9) to acc.
#define ROW(w, s, acc, DOT) \
	VMOVDQU w, Y10 \
	VPABSB Y10, Y11 \
	VPSIGNB Y10, Y8, Y12 \
	DOT \
	VCVTDQ2PS Y13, Y13 \
	VBROADCASTSS s, Y14 \
	VMULPS Y9, Y14, Y14 \
	VFMADD231PS Y13, Y14, acc

// ROWS4: AX, BX walk four rows of weights and scales; R8, R9 are one and three
// row strides in bytes of weights, R10, R11 of scales.
#define ROWS4(DOT) \
	MOVQ out+0(FP), DI \
	MOVQ w+8(FP), AX \
	MOVQ ws+16(FP), BX \
	MOVQ blocks+40(FP), R12 \
	MOVQ groups+48(FP), R13 \
	MOVQ R12, R8 \
	SHLQ $5, R8 \
	LEAQ (R8)(R8*2), R9 \
	LEAQ (R12*4), R10 \
	LEAQ (R10)(R10*2), R11 \
group: \
	MOVQ x+24(FP), CX \
	MOVQ xs+32(FP), DX \
	MOVQ R12, SI \
	VXORPS Y0, Y0, Y0 \
	VXORPS Y1, Y1, Y1 \
	VXORPS Y2, Y2, Y2 \
	VXORPS Y3, Y3, Y3 \
block: \
	VMOVDQU (CX), Y8 \
	VBROADCASTSS (DX), Y9 \
	ROW((AX), (BX), Y0, DOT) \
	ROW((AX)(R8*1), (BX)(R10*1), Y1, DOT) \
	ROW((AX)(R8*2), (BX)(R10*2), Y2, DOT) \
	ROW((AX)(R9*1), (BX)(R11*1), Y3, DOT) \
	ADDQ $32, AX \
	ADDQ $4, BX \
	ADDQ $32, CX \
	ADDQ $4, DX \
	DECQ SI \
	JNZ block \
	SUM4 \
	VMOVUPS X0, (DI) \
	ADDQ $16, DI \
	ADDQ R9, AX \
	ADDQ R11, BX \
	DECQ R13 \
	JNZ group \
	VZEROUPPER \
	RET

// COL adds the block Y10 (absolute Y11, scale Y9) times the vector at x.
#define COL(x, s, acc, DOT) \
	VMOVDQU x, Y12 \
	VPSIGNB Y10, Y12, Y12 \
	DOT \
	VCVTDQ2PS Y13, Y13 \
	VBROADCASTSS s, Y14 \
	VMULPS Y9, Y14, Y14 \
	VFMADD231PS Y13, Y14, acc

// COLS4: AX, BX walk one row at a time; CX, DX walk four vectors and their
// scales, whose strides are in R8..R11 as above. R14, R15 step the output.
#define COLS4(DOT) \
	MOVQ out+0(FP), DI \
	MOVQ stride+8(FP), R14 \
	SHLQ $2, R14 \
	MOVQ w+16(FP), AX \
	MOVQ ws+24(FP), BX \
	MOVQ blocks+48(FP), R12 \
	MOVQ rows+56(FP), R13 \
	MOVQ R12, R8 \
	SHLQ $5, R8 \
	LEAQ (R8)(R8*2), R9 \
	LEAQ (R12*4), R10 \
	LEAQ (R10)(R10*2), R11 \
row: \
	MOVQ x+32(FP), CX \
	MOVQ xs+40(FP), DX \
	MOVQ R12, SI \
	VXORPS Y0, Y0, Y0 \
	VXORPS Y1, Y1, Y1 \
	VXORPS Y2, Y2, Y2 \
	VXORPS Y3, Y3, Y3 \
block: \
	VMOVDQU (AX), Y10 \
	VPABSB Y10, Y11 \
	VBROADCASTSS (BX), Y9 \
	COL((CX), (DX), Y0, DOT) \
	COL((CX)(R8*1), (DX)(R10*1), Y1, DOT) \
	COL((CX)(R8*2), (DX)(R10*2), Y2, DOT) \
	COL((CX)(R9*1), (DX)(R11*1), Y3, DOT) \
	ADDQ $32, AX \
	ADDQ $4, BX \
	ADDQ $32, CX \
	ADDQ $4, DX \
	DECQ SI \
	JNZ block \
	SUM4 \
	MOVQ DI, SI \
	VMOVSS X0, (SI) \
	ADDQ R14, SI \
	VEXTRACTPS $1, X0, (SI) \
	ADDQ R14, SI \
	VEXTRACTPS $2, X0, (SI) \
	ADDQ R14, SI \
	VEXTRACTPS $3, X0, (SI) \
	ADDQ $4, DI \
	DECQ R13 \
	JNZ row \
	VZEROUPPER \
	RET

// func q8Rows4VNNI(out *float32, w *int8, ws *float32, x *int8, xs *float32, blocks, groups int)
TEXT ·q8Rows4VNNI(SB), NOSPLIT, $0-56
	ROWS4(DOTVNNI)

// func q8Rows4AVX2(out *float32, w *int8, ws *float32, x *int8, xs *float32, blocks, groups int)
TEXT ·q8Rows4AVX2(SB), NOSPLIT, $0-56
	ONES
	ROWS4(DOTAVX2)

// func q8Cols4VNNI(out *float32, stride int, w *int8, ws *float32, x *int8, xs *float32, blocks, rows int)
TEXT ·q8Cols4VNNI(SB), NOSPLIT, $0-64
	COLS4(DOTVNNI)

// func q8Cols4AVX2(out *float32, stride int, w *int8, ws *float32, x *int8, xs *float32, blocks, rows int)
TEXT ·q8Cols4AVX2(SB), NOSPLIT, $0-64
	ONES
	COLS4(DOTAVX2)
