# Whether this libtorch has c10d with gloo, by which processes train one model together, and NCCL, by which GPUs do: RDPP_GLOO
# and RDPP_NCCL. Gloo's headers are those that lie in LIBTORCH or, where that is the system's libtorch, the system's: another
# gloo's would not fit.
include(CheckCXXSourceCompiles)

if(LIBTORCH)
  find_path(GLOO_INCLUDE gloo/context.h PATHS ${TORCH_INCLUDE_DIRS} NO_DEFAULT_PATH)
else()
  find_path(GLOO_INCLUDE gloo/context.h HINTS ${TORCH_INCLUDE_DIRS})
endif()
set(CMAKE_REQUIRED_LIBRARIES ${TORCH_LIBRARIES})
set(CMAKE_REQUIRED_FLAGS -std=c++${LIBTORCH_STANDARD})
set(RDPP_GLOO OFF)
set(RDPP_NCCL OFF)
set(CMAKE_REQUIRED_INCLUDES ${TORCH_INCLUDE_DIRS})
if(GLOO_INCLUDE)
  list(APPEND CMAKE_REQUIRED_INCLUDES ${GLOO_INCLUDE})
  set(CMAKE_REQUIRED_DEFINITIONS -DUSE_C10D_GLOO)
  check_cxx_source_compiles("
    #include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
    #include <torch/csrc/distributed/c10d/TCPStore.hpp>
    int main() {
      auto store = c10::make_intrusive<c10d::TCPStore>(\"localhost\", c10d::TCPStoreOptions{});
      auto options = c10d::ProcessGroupGloo::Options::create();
      options->devices.push_back(c10d::ProcessGroupGloo::createDefaultDevice());
      c10::make_intrusive<c10d::ProcessGroupGloo>(store, 0, 1, options);
    }" RDPP_HAS_GLOO)
  set(RDPP_GLOO ${RDPP_HAS_GLOO})
endif()
if(RDPP_CUDA)
  find_path(NCCL_INCLUDE nccl.h HINTS ${LIBTORCH}/../nvidia/nccl/include) # where Python's packages have it
  if(NCCL_INCLUDE)
    list(APPEND CMAKE_REQUIRED_INCLUDES ${NCCL_INCLUDE})
  endif()
  set(CMAKE_REQUIRED_DEFINITIONS -DUSE_C10D_NCCL)
  check_cxx_source_compiles("
    #include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
    #include <torch/csrc/distributed/c10d/HashStore.hpp>
    int main() { c10::make_intrusive<c10d::ProcessGroupNCCL>(c10::make_intrusive<c10d::HashStore>(), 0, 1); }" RDPP_HAS_NCCL)
  set(RDPP_NCCL ${RDPP_HAS_NCCL})
endif()
foreach(variable LIBRARIES FLAGS INCLUDES DEFINITIONS)
  unset(CMAKE_REQUIRED_${variable})
endforeach()

set(c10d_definitions)
set(c10d_folders)
if(RDPP_GLOO)
  list(APPEND c10d_definitions RDPP_GLOO)
  list(APPEND c10d_folders ${GLOO_INCLUDE})
endif()
if(RDPP_NCCL)
  list(APPEND c10d_definitions RDPP_NCCL)
  list(APPEND c10d_folders ${NCCL_INCLUDE})
endif()
list(REMOVE_ITEM c10d_folders /usr/include NCCL_INCLUDE-NOTFOUND) # which compilers look in by themselves
set_source_files_properties(csrc/group.cpp PROPERTIES COMPILE_DEFINITIONS "${c10d_definitions}" INCLUDE_DIRECTORIES "${c10d_folders}")
message(STATUS "processes that train one model: gloo ${RDPP_GLOO}, NCCL ${RDPP_NCCL}")
