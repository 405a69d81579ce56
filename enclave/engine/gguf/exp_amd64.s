#include "textflag.h"

// The constants of exp32, in its order.
DATA expc<>+0(SB)/4, $-87.0
DATA expc<>+4(SB)/4, $88.0
DATA expc<>+8(SB)/4, $1.44269504
DATA expc<>+12(SB)/4, $12582912.0
DATA expc<>+16(SB)/4, $0.693359375
DATA expc<>+20(SB)/4, $2.12194440e-4
DATA expc<>+24(SB)/4, $1.9875691500e-4
DATA expc<>+28(SB)/4, $1.3981999507e-3
DATA expc<>+32(SB)/4, $8.3334519073e-3
DATA expc<>+36(SB)/4, $4.1665795894e-2
DATA expc<>+40(SB)/4, $1.6666665459e-1
DATA expc<>+44(SB)/4, $5.0000001201e-1
DATA expc<>+48(SB)/4, $1.0
DATA expc<>+52(SB)/4, $127
GLOBL expc<>(SB), RODATA|NOPTR, $56

// STEP is one multiply and add of the polynomial, not fused, so that each
// lane equals exp32 bit for bit.
#define STEP(off) \
	VMULPS Y0, Y3, Y3 \
	VBROADCASTSS expc<>+off(SB), Y4 \
	VADDPS Y4, Y3, Y3

// func expAVX2(x *float32, groups int)
// x = e**x, groups of 8.
TEXT ·expAVX2(SB), NOSPLIT, $0-16
	MOVQ x+0(FP), AX
	MOVQ groups+8(FP), SI
	VBROADCASTSS expc<>+0(SB), Y15
	VBROADCASTSS expc<>+4(SB), Y14
	VBROADCASTSS expc<>+8(SB), Y13
	VBROADCASTSS expc<>+12(SB), Y12
	VBROADCASTSS expc<>+16(SB), Y11
	VBROADCASTSS expc<>+20(SB), Y10
	VBROADCASTSS expc<>+24(SB), Y9
	VBROADCASTSS expc<>+48(SB), Y8
	VPBROADCASTD expc<>+52(SB), Y7
loop:
	VMOVUPS (AX), Y0
	VCMPPS $0x1e, Y15, Y0, Y6 // x > -87, false for NaN
	VMINPS Y14, Y0, Y0
	VMULPS Y13, Y0, Y1
	VADDPS Y12, Y1, Y1
	VSUBPS Y12, Y1, Y1 // k
	VMULPS Y11, Y1, Y2
	VSUBPS Y2, Y0, Y0
	VMULPS Y10, Y1, Y2
	VADDPS Y2, Y0, Y0 // r
	VMOVAPS Y9, Y3
	STEP(28)
	STEP(32)
	STEP(36)
	STEP(40)
	STEP(44)
	VMULPS Y0, Y3, Y3
	VMULPS Y0, Y3, Y3
	VADDPS Y0, Y3, Y3
	VADDPS Y8, Y3, Y3
	VCVTTPS2DQ Y1, Y1
	VPADDD Y7, Y1, Y1
	VPSLLD $23, Y1, Y1
	VMULPS Y1, Y3, Y3
	VANDPS Y6, Y3, Y3
	VMOVUPS Y3, (AX)
	ADDQ $32, AX
	DECQ SI
	JNZ loop
	VZEROUPPER
	RET
