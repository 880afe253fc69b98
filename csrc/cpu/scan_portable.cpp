#include "scan.h"

#define DLM_ISA portable
#include "scan.inc"
