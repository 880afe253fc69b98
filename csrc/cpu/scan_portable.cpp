#include "scan.h"

#define DLM_ISA portable
#define DLM_STRIP 512
#include "scan.inc"
