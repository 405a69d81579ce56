#include "textflag.h"

// func dotsAVX2(out, m, x *float32, n, rows int)
// n is a multiple of 8; one accumulator per row, so a row's sum does not
// depend on its neighbours.
TEXT ·dotsAVX2(SB), NOSPLIT, $0-40
	MOVQ out+0(FP), DI
	MOVQ m+8(FP), AX
	MOVQ n+24(FP), R12
	MOVQ rows+32(FP), R13
	LEAQ (R12*4), R8
	LEAQ (R8)(R8*2), R9
	SHRQ $3, R12
four:
	CMPQ R13, $4
	JLT one
	MOVQ x+16(FP), CX
	MOVQ R12, SI
	VXORPS Y0, Y0, Y0
	VXORPS Y1, Y1, Y1
	VXORPS Y2, Y2, Y2
	VXORPS Y3, Y3, Y3
fourloop:
	VMOVUPS (CX), Y8
	VFMADD231PS (AX), Y8, Y0
	VFMADD231PS (AX)(R8*1), Y8, Y1
	VFMADD231PS (AX)(R8*2), Y8, Y2
	VFMADD231PS (AX)(R9*1), Y8, Y3
	ADDQ $32, AX
	ADDQ $32, CX
	DECQ SI
	JNZ fourloop
	VHADDPS Y1, Y0, Y0
	VHADDPS Y3, Y2, Y2
	VHADDPS Y2, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPS X1, X0, X0
	VMOVUPS X0, (DI)
	ADDQ $16, DI
	ADDQ R9, AX
	SUBQ $4, R13
	JMP four
one:
	TESTQ R13, R13
	JZ done
	MOVQ x+16(FP), CX
	MOVQ R12, SI
	VXORPS Y0, Y0, Y0
oneloop:
	VMOVUPS (CX), Y8
	VFMADD231PS (AX), Y8, Y0
	ADDQ $32, AX
	ADDQ $32, CX
	DECQ SI
	JNZ oneloop
	VHADDPS Y0, Y0, Y0
	VHADDPS Y0, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDSS X1, X0, X0
	VMOVSS X0, (DI)
	ADDQ $4, DI
	DECQ R13
	JMP one
done:
	VZEROUPPER
	RET

// func mixAVX2(out, m, p *float32, n, rows int)
// n is a multiple of 8; 32 columns at a time, then 8.
TEXT ·mixAVX2(SB), NOSPLIT, $0-40
	MOVQ out+0(FP), DI
	MOVQ m+8(FP), AX
	MOVQ n+24(FP), R12
	LEAQ (R12*4), R8
wide:
	CMPQ R12, $32
	JLT narrow
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	VMOVUPS 64(DI), Y2
	VMOVUPS 96(DI), Y3
	MOVQ AX, BX
	MOVQ p+16(FP), CX
	MOVQ rows+32(FP), SI
wideloop:
	VBROADCASTSS (CX), Y8
	VFMADD231PS (BX), Y8, Y0
	VFMADD231PS 32(BX), Y8, Y1
	VFMADD231PS 64(BX), Y8, Y2
	VFMADD231PS 96(BX), Y8, Y3
	ADDQ R8, BX
	ADDQ $4, CX
	DECQ SI
	JNZ wideloop
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	VMOVUPS Y2, 64(DI)
	VMOVUPS Y3, 96(DI)
	ADDQ $128, DI
	ADDQ $128, AX
	SUBQ $32, R12
	JMP wide
narrow:
	TESTQ R12, R12
	JZ done
	VMOVUPS (DI), Y0
	MOVQ AX, BX
	MOVQ p+16(FP), CX
	MOVQ rows+32(FP), SI
narrowloop:
	VBROADCASTSS (CX), Y8
	VFMADD231PS (BX), Y8, Y0
	ADDQ R8, BX
	ADDQ $4, CX
	DECQ SI
	JNZ narrowloop
	VMOVUPS Y0, (DI)
	ADDQ $32, DI
	ADDQ $32, AX
	SUBQ $8, R12
	JMP narrow
done:
	VZEROUPPER
	RET

DATA limit<>+0(SB)/4, $127.0
GLOBL limit<>(SB), RODATA|NOPTR, $4
DATA absmask<>+0(SB)/4, $0x7fffffff
GLOBL absmask<>(SB), RODATA|NOPTR, $4
// Undoes the lane interleaving of the two packs.
DATA order<>+0(SB)/4, $0
DATA order<>+4(SB)/4, $4
DATA order<>+8(SB)/4, $1
DATA order<>+12(SB)/4, $5
DATA order<>+16(SB)/4, $2
DATA order<>+20(SB)/4, $6
DATA order<>+24(SB)/4, $3
DATA order<>+28(SB)/4, $7
GLOBL order<>(SB), RODATA|NOPTR, $32

// func quantizeAVX2(q *int8, s, x *float32, blocks int)
// s = max|x| / 127, q = round(x * 127 / max|x|), zeros for a block of zeros.
TEXT ·quantizeAVX2(SB), NOSPLIT, $0-32
	MOVQ q+0(FP), DI
	MOVQ s+8(FP), BX
	MOVQ x+16(FP), AX
	MOVQ blocks+24(FP), SI
	VBROADCASTSS absmask<>(SB), Y15
	VMOVSS limit<>(SB), X14
	VMOVDQU order<>(SB), Y13
	VXORPS X12, X12, X12
loop:
	VMOVUPS (AX), Y0
	VMOVUPS 32(AX), Y1
	VMOVUPS 64(AX), Y2
	VMOVUPS 96(AX), Y3
	VANDPS Y15, Y0, Y4
	VANDPS Y15, Y1, Y5
	VANDPS Y15, Y2, Y6
	VANDPS Y15, Y3, Y7
	VMAXPS Y5, Y4, Y4
	VMAXPS Y7, Y6, Y6
	VMAXPS Y6, Y4, Y4
	VEXTRACTF128 $1, Y4, X5
	VMAXPS X5, X4, X4
	VPSHUFD $0x4e, X4, X5
	VMAXPS X5, X4, X4
	VPSHUFD $0xb1, X4, X5
	VMAXPS X5, X4, X4
	VDIVSS X14, X4, X6
	VMOVSS X6, (BX)
	VDIVSS X4, X14, X7
	VUCOMISS X12, X4
	JNE scale
	VXORPS X7, X7, X7
scale:
	VBROADCASTSS X7, Y7
	VMULPS Y7, Y0, Y0
	VMULPS Y7, Y1, Y1
	VMULPS Y7, Y2, Y2
	VMULPS Y7, Y3, Y3
	VCVTPS2DQ Y0, Y0
	VCVTPS2DQ Y1, Y1
	VCVTPS2DQ Y2, Y2
	VCVTPS2DQ Y3, Y3
	VPACKSSDW Y1, Y0, Y0
	VPACKSSDW Y3, Y2, Y2
	VPACKSSWB Y2, Y0, Y0
	VPERMD Y0, Y13, Y0
	VMOVDQU Y0, (DI)
	ADDQ $128, AX
	ADDQ $32, DI
	ADDQ $4, BX
	DECQ SI
	JNZ loop
	VZEROUPPER
	RET
